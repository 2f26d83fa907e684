-- Modules: shapes, names and order of parameters, initialisers, modes, saving, printing, errors.
local lt = require "luatape"
local nn = lt.nn

local function names(m)
  local list = {}
  for name in m:named_parameters() do list[#list + 1] = name end
  return table.concat(list, " ")
end

local function equal(a, b) return a:eq(b):all():item() end

---Largest and smallest element.
local function range(t) return t:min():item(), t:max():item() end

local function net()
  return nn.Sequential { nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2) }
end

describe("nn.Linear", function()
  it("is x W^T + b, with PyTorch's shapes", function()
    local m = nn.Linear(3, 2)
    assert.same({ 2, 3 }, m.weight.shape)
    assert.same({ 2 }, m.bias.shape)
    assert.is_true(m.weight.trainable and m.bias.trainable)
    local x = lt.randn(5, 7, 3)
    assert.same({ 5, 7, 2 }, m(x).shape)
    local expected = x:matmul(m.weight:transpose(1, 2)) + m.bias
    assert.is_true((m(x) - expected):abs():max():item() < 1e-5)
  end)

  it("takes bias = false and a dtype", function()
    local m = nn.Linear(3, 2, { bias = false, dtype = "float64" })
    assert.is_nil(m.bias)
    assert.equal("weight", names(m))
    assert.equal("float64", m.weight.dtype)
    assert.same({ 4, 2 }, m(lt.ones({ 4, 3 }, { dtype = "float64" })).shape)
  end)

  it("begins uniform within 1 / sqrt(in)", function()
    local m = nn.Linear(64, 500)
    local low, high = range(m.weight)
    assert.is_true(low >= -0.125 and low < -0.124 and high <= 0.125 and high > 0.124)
    low, high = range(m.bias)
    assert.is_true(low >= -0.125 and low < -0.12 and high <= 0.125 and high > 0.12)
    assert.is_true(math.abs(m.weight:mean():item()) < 2e-3)
  end)

  it("refuses bad sizes and options", function()
    assert.error_matches(function() nn.Linear(0, 2) end, "Linear: in_features must be an integer above 0, got 0")
    assert.error_matches(function() nn.Linear(3) end, "out_features must be an integer above 0, got nil")
    assert.error_matches(function() nn.Linear(3, 2.5) end, "out_features")
    assert.error_matches(function() nn.Linear(3, 2, { biass = true }) end,
      "Linear: unknown option 'biass'; it has bias, dtype")
    assert.error_matches(function() nn.Linear(3, 2, true) end, "options must be a table")
  end)

  it("names the shapes and the user's line when they do not fit", function()
    local ok, message = pcall(function() net()(lt.ones(2, 5)) end)
    assert.is_false(ok)
    assert.matches("nn_spec.lua:%d+: linear: .*2x5.*3x4", message)
  end)
end)

describe("nn.init", function()
  it("draws from the context's stream", function()
    lt.manual_seed(7)
    local a = net()
    lt.manual_seed(7)
    local b = net()
    local c = net()
    assert.is_true(equal(a[1].weight, b[1].weight) and equal(a[3].bias, b[3].bias))
    assert.is_false(equal(b[1].weight, c[1].weight))
  end)

  local function deviation(t) return t:std():item() end
  local function near(expected, got) assert.is_true(math.abs(got / expected - 1) < 0.05) end

  it("has PyTorch's formulas", function()
    local w = lt.zeros(200, 300)
    nn.init.kaiming_uniform_(w)
    local _, high = range(w)
    near(math.sqrt(6 / 300), high)
    nn.init.kaiming_uniform_(w, { mode = "fan_out", nonlinearity = "relu" })
    near(math.sqrt(2 / 200), deviation(w))
    nn.init.kaiming_normal_(w, { a = 1 })
    near(math.sqrt(1 / 300), deviation(w))
    nn.init.xavier_uniform_(w)
    _, high = range(w)
    near(math.sqrt(6 / 500), high)
    nn.init.xavier_normal_(w, { gain = 2 })
    near(2 * math.sqrt(2 / 500), deviation(w))
    nn.init.normal_(w, 3, 0.5)
    near(3, w:mean():item())
    near(0.5, deviation(w))
    local low
    low, high = range(nn.init.uniform_(w, -2, 1))
    assert.is_true(low >= -2 and low < -1.9 and high <= 1 and high > 0.9)
    assert.equal(0.25, nn.init.constant_(w, 0.25):mean():item())
    assert.equal(1, nn.init.ones_(w):min():item())
    assert.equal(0, nn.init.zeros_(w):max():item())
    local conv = nn.init.kaiming_normal_(lt.zeros(50, 4, 5, 5))
    near(math.sqrt(2 / 100), deviation(conv))
    assert.equal(5 / 3, nn.init.calculate_gain "tanh")
  end)

  it("refuses what makes no sense", function()
    assert.error_matches(function() nn.init.kaiming_uniform_(lt.zeros(3)) end, "2 or more dimensions")
    assert.error_matches(function() nn.init.kaiming_uniform_(3) end, "takes a tensor")
    assert.error_matches(function() nn.init.kaiming_normal_(lt.zeros(2, 2), { mode = "fan" }) end,
      "mode must be fan_in or fan_out, got fan")
    assert.error_matches(function() nn.init.calculate_gain "cube" end, "no nonlinearity 'cube'")
    assert.error_matches(function() nn.init.normal_(lt.zeros(2), 0, -1) end, "std must be a number of at least 0")
    assert.error_matches(function() nn.init.uniform_(lt.zeros(2), 1, 0) end, "not in order")
  end)
end)

describe("nn.Sequential", function()
  it("takes a list or arguments, and functions as layers", function()
    local a, b = nn.Linear(2, 2), nn.Linear(2, 1)
    local x = lt.randn(3, 2)
    local one, two = nn.Sequential { a, nn.Tanh(), b }, nn.Sequential(a, lt.tanh, b)
    assert.is_true(equal(one(x), two(x)))
    assert.equal(a, one[1])
    assert.equal(3, #one)
    assert.equal("1.weight 1.bias 3.weight 3.bias", names(two))
    assert.equal(x, nn.Sequential()(x))
    assert.same({ 3, 5 }, one:append(nn.Linear(1, 5))(x).shape)
  end)

  it("refuses what is no layer", function()
    assert.error_matches(function() nn.Sequential { nn.ReLU(), 3 } end,
      "layer 2 must be a module or a function, got number")
    assert.error_matches(function() nn.Sequential(nn.ReLU(), nil, nn.ReLU()) end, "layer 2 .*got nil")
    assert.error_matches(function() nn.Sequential(lt.ones(2)) end, "layer 1 must be")
  end)
end)

describe("nn: parameters", function()
  it("come in the order of assignment, each once, with their names", function()
    local m = net()
    assert.equal("1.weight 1.bias 3.weight 3.bias", names(m))
    local list = m:parameters()
    assert.equal(4, #list)
    assert.equal(m[1].weight, list[1])
    assert.equal(m[3].bias, list[4])
    for name, t in m:named_parameters() do assert.equal(name, t.name) end
    m[3].weight = m[1].weight
    assert.equal("1.weight 1.bias 3.bias", names(m))
    assert.equal(3, #m:parameters())
  end)

  it("follow every change of the modules", function()
    local m = net()
    assert.equal(4, #m:parameters())
    m[3] = nn.Linear(3, 9, { bias = false }) -- another one in its place
    assert.equal(m[3].weight, m:parameters()[3])
    assert.equal(3, #m:parameters())
    m[1].bias = nil
    assert.equal(2, #m:parameters())
    m[1].scale = lt.variable(1)
    assert.equal(3, #m:parameters())
    m:append(nn.Linear(9, 1))
    assert.equal(5, #m:parameters())
    m:parameters()[6] = m[1].weight -- the list is the caller's
    assert.equal(5, #m:parameters())
  end)

  it("of lists inside a module are found too", function()
    local Stack = nn.module("Stack", function(self, n)
      self.layers = {}
      for i = 1, n do self.layers[i] = nn.Linear(2, 2) end
      self.scales = { lt.variable(1), lt.variable(2) }
      self.notes = { "text", 3, {} }
    end)
    local m = Stack(2)
    assert.equal("layers.1.weight layers.1.bias layers.2.weight layers.2.bias scales.1 scales.2", names(m))
    assert.equal(6, #m:parameters())
    m.layers[3] = nn.Linear(2, 2)
    assert.equal(8, #m:parameters())
    m.layers[2] = nil
    assert.equal(4, #m:parameters())
    m.itself, m.notes[3] = m, m.notes
    assert.equal(4, #m:parameters())
  end)

  it("keep the name that the user gave", function()
    local Scale = nn.module("Scale", function(self)
      self.factor = lt.variable(2, { name = "my factor" })
      self.shift = lt.variable(0)
    end)
    local m = nn.Sequential { nn.Sequential { Scale() } }
    assert.equal("my factor", m[1][1].factor.name)
    assert.equal("1.1.shift", m[1][1].shift.name)
    assert.equal("1.1.factor 1.1.shift", names(m))
  end)

  it("can be frozen", function()
    local m = net()
    assert.equal(m[1], m[1]:freeze())
    assert.is_false(m[1].weight.trainable)
    local tape <close> = lt.tape()
    local gs = tape:gradient(m(lt.ones(1, 4)):sum(), m:parameters())
    assert.is_false(gs[1])
    assert.equal("frozen", gs:why(m[1].weight).code)
    assert.is_true(lt.is_tensor(gs[3]))
    m:unfreeze()
    assert.is_true(m[1].bias.trainable)
  end)

  it("change their type with to", function()
    local m = net()
    m[3].weight = m[1].bias -- shared, and it stays so
    m:register_buffer("count", lt.ones(2))
    assert.equal(m, m:to "float64")
    for name, t in m:named_parameters() do
      assert.equal("float64", t.dtype)
      assert.equal(name, t.name)
    end
    assert.equal(m[3].weight, m[1].bias)
    assert.equal("float64", m.count.dtype)
  end)
end)

describe("nn: training", function()
  it("fits a line with the seed's loop", function()
    lt.manual_seed(3)
    local model = nn.Sequential { nn.Linear(10, 10), nn.ReLU(), nn.Linear(10, 1) }
    local opt = lt.optim.Adam { lr = 0.01 }
    local x, y = lt.randn(100, 10), lt.randn(100, 1)
    local first, last
    for _ = 1, 100 do
      local tape <close> = lt.tape()
      local loss = ((model(x) - y) ^ 2):mean()
      opt:apply_gradients(tape:gradient(loss, model:parameters()), model:parameters())
      first, last = first or loss:item(), loss:item()
    end
    assert.is_true(last < 0.6 * first)
  end)

  it("points to the user's line, not into a layer", function()
    local m = net()
    local y = m(lt.ones(1, 4)):sum() local line = debug.getinfo(1, "l").currentline
    local tape <close> = lt.tape()
    local gs = tape:gradient(y, m:parameters())
    local why = gs:why(m[1].weight)
    assert.equal("outside-tape", why.code)
    assert.matches("nn_spec.lua:" .. line, why.where, 1, true)
    assert.matches("'1.weight'", why.message, 1, true)
  end)

  it("has a mode, which Dropout follows", function()
    local m = nn.Sequential { nn.Dropout(0.5), nn.Sequential { nn.Dropout { p = 0.25 } } }
    local x = lt.ones(2000)
    assert.is_true(m.training and m[2][1].training)
    local y = m[1](x)
    local kept = y:count_nonzero():item()
    assert.is_true(kept > 850 and kept < 1150)
    assert.equal(2, y:max():item())
    assert.equal(m, m:eval())
    assert.is_false(m[2][1].training)
    assert.equal(x, m(x))
    m:train()
    assert.is_true(m[2][1].training)
    m:train(false)
    assert.is_false(m.training)
    assert.error_matches(function() m:train(1) end, "true or false")
    assert.error_matches(function() nn.Dropout(2) end, "p must be a number between 0 and 1, got 2")
    assert.error_matches(function() nn.Dropout { q = 1 } end, "unknown option 'q'")
  end)
end)

describe("nn: state_dict", function()
  it("is a copy that loads back", function()
    local a, b = net(), net()
    local state = a:state_dict()
    local weight = state["1.weight"]
    assert.is_false(weight.is_variable)
    a[1].weight:assign(lt.zeros(3, 4))
    assert.is_true(weight:abs():max():item() > 0)
    local missing, unexpected = b:load_state_dict(state)
    assert.same({ {}, {} }, { missing, unexpected })
    assert.is_true(equal(b[1].weight, weight))
    assert.equal("1.weight", b[1].weight.name)
  end)

  it("counts from 0 for PyTorch, both ways", function()
    local Net = nn.module("Net", function(self)
      self.net = nn.Sequential { nn.Linear(2, 2), nn.Sequential { nn.Linear(2, 1, { bias = false }) } }
    end)
    local a, b = Net(), Net()
    local state = a:state_dict { pytorch = true }
    local keys = {}
    for name in pairs(state) do keys[#keys + 1] = name end
    table.sort(keys)
    assert.same({ "net.0.bias", "net.0.weight", "net.1.0.weight" }, keys)
    b:load_state_dict(state, { pytorch = true })
    assert.is_true(equal(a.net[2][1].weight, b.net[2][1].weight))
    assert.error_matches(function() b:load_state_dict(state) end, "missing: net.1.weight")
  end)

  it("holds buffers, which are not parameters", function()
    local m = nn.Sequential { nn.Linear(2, 2) }
    m[1]:register_buffer("mean", lt.ones(2))
    assert.equal("1.weight 1.bias", names(m))
    assert.equal(2, #m:parameters())
    local state = m:state_dict()
    assert.same({ 1, 1 }, state["1.mean"]:totable())
    state["1.mean"] = lt.zeros(2)
    m:load_state_dict(state)
    assert.same({ 0, 0 }, m[1].mean:totable())
    assert.error_matches(function() m:register_buffer("x", 3) end, "must be a tensor")
  end)

  it("is checked as a whole before anything changes", function()
    local m = net()
    local before = m[1].weight:clone()
    local state = net():state_dict()
    state["3.weight"], state["1.bias"], state.extra = lt.zeros(3, 2), nil, lt.zeros(1)
    state["3.bias"] = 5
    local ok, message = pcall(m.load_state_dict, m, state)
    assert.is_false(ok)
    for _, part in ipairs { "'3.weight' is 3x2, the module's 2x3", "'3.bias' is a number, not a tensor",
      "missing: 1.bias", "unexpected: extra" } do
      assert.matches(part, message, 1, true)
    end
    assert.is_true(equal(before, m[1].weight))
    state["3.weight"], state["3.bias"] = nil, nil
    local missing, unexpected = m:load_state_dict(state, { strict = false })
    assert.same({ "1.bias", "3.weight", "3.bias" }, missing)
    assert.same({ "extra" }, unexpected)
    assert.is_true(equal(state["1.weight"], m[1].weight))
    assert.error_matches(function() m:load_state_dict(3) end, "takes a table of tensors")
    assert.error_matches(function() m:load_state_dict({}, { strikt = 1 }) end, "unknown option 'strikt'")
  end)
end)

describe("nn.module", function()
  it("makes classes whose forward is the call", function()
    local Net = nn.module("Net", function(self, hidden)
      self.first = nn.Linear(2, hidden)
      self.second = nn.Linear(hidden, 1)
    end)
    function Net:forward(x, scale) return self.second(self.first(x):tanh()) * scale, "more" end
    function Net:hidden() return self.first.out_features end
    local m = Net(5)
    local y, more = m(lt.ones(3, 2), 2)
    assert.same({ 3, 1 }, y.shape)
    assert.equal("more", more)
    assert.equal(5, m:hidden())
    assert.equal("first.weight first.bias second.weight second.bias", names(m))
    local visited = {}
    nn.Sequential { m }:apply(function(x) visited[#visited + 1] = x.class_name end)
    assert.same({ "Linear", "Linear", "Net", "Sequential" }, visited)
    local modules = {}
    for name in nn.Sequential { m }:named_modules() do modules[#modules + 1] = name end
    assert.same({ "", "1", "1.first", "1.second" }, modules)
  end)

  it("says what is missing", function()
    assert.error_matches(function() nn.module("Empty")()(1) end, "Empty: has no forward; define it")
    assert.error_matches(function() nn.module(3) end, "name must be a string")
    assert.error_matches(function() nn.module("X", 3) end, "constructor must be a function")
  end)
end)

describe("nn: modules without parameters", function()
  local x = lt.tensor { { -1, 0.5 }, { 2, -3 } }

  it("are their ops with options", function()
    assert.is_true(equal(nn.ReLU()(x), x:relu()))
    assert.is_true(equal(nn.Tanh()(x), x:tanh()))
    assert.is_true(equal(nn.Sigmoid()(x), x:sigmoid()))
    assert.is_true(equal(nn.GELU { approximate = "tanh" }(x), x:gelu { approximate = "tanh" }))
    assert.is_true(equal(nn.Softmax { dim = 1 }(x), x:softmax(1)))
    assert.is_true(equal(nn.Softmax(1)(x), x:softmax(1)))
    assert.is_true(equal(nn.LogSoftmax { dim = 2 }(x), x:log_softmax(2)))
    assert.is_true(equal(nn.LeakyReLU(0.5)(x), x:leaky_relu { negative_slope = 0.5 }))
    assert.equal(x, nn.Identity()(x))
    assert.same({ 2, 12 }, nn.Flatten()(lt.ones(2, 3, 4)).shape)
    assert.same({ 0, 0 }, nn.Flatten()(lt.ones(0, 3, 0)).shape)
    assert.error_matches(function() nn.Flatten()(lt.ones(2)) end, "dims 2 to %-1 do not fit")
    assert.error_matches(function() nn.Flatten { start_dim = 0 } end, "start_dim must be a dimension")
    assert.same({ 6, 4 }, nn.Flatten { start_dim = 1, end_dim = 2 }(lt.ones(2, 3, 4)).shape)
    assert.error_matches(function() nn.GELU { aproximate = "tanh" } end,
      "GELU: unknown option 'aproximate'; it has approximate")
  end)

  it("all have their op", function()
    for name in ("ReLU Tanh Sigmoid GELU Softmax LogSoftmax Softmin SiLU ELU SELU LeakyReLU ReLU6 "
      .. "Softplus Softsign Mish Hardswish Hardsigmoid Hardtanh LogSigmoid GLU"):gmatch "%S+" do
      assert.is_true(lt.is_tensor(nn[name]()(x)), name)
    end
  end)

  it("are losses too", function()
    local labels = lt.tensor({ 1, 2 }, { dtype = "int64" })
    assert.is_true(equal(nn.MSELoss()(x, x * 0), lt.mse_loss(x, x * 0)))
    assert.is_true(equal(nn.CrossEntropyLoss { label_smoothing = 0.1 }(x, labels),
      lt.cross_entropy(x, labels, { label_smoothing = 0.1 })))
    assert.same({ 2, 2 }, nn.MSELoss { reduction = "none" }(x, x).shape)
  end)
end)

describe("nn: printing", function()
  it("looks as in PyTorch, counting from 1", function()
    local Net = nn.module("Net", function(self)
      self.body = nn.Sequential { nn.Linear(2, 3, { bias = false }), nn.Dropout(0.1), lt.tanh }
      self.heads = { nn.Linear(3, 1), nn.Softmax(2) }
    end)
    assert.equal([[
Net(
  (body): Sequential(
    (1): Linear(in_features=2, out_features=3, bias=false)
    (2): Dropout(p=0.1)
    (3): function
  )
  (heads.1): Linear(in_features=3, out_features=1, bias=true)
  (heads.2): Softmax(dim=2)
)]], tostring(Net()))
    assert.equal("ReLU()", tostring(nn.ReLU()))
  end)
end)
