-- Optimizers against their formulas in plain Lua, and how they behave at the edges: missing and
-- broken gradients, saving, groups, schedules, minimize.
local lt = require "luatape"
local optim = lt.optim

local globals = require "spec.globals"

-- ---- Formulas ----------------------------------------------------------------------------------

---One step of one number: p, its state s (a table), gradient g, step t, options o -> p.
local rules = {}

function rules.SGD(p, s, g, t, o)
  local lr, mu = o.lr or (o.keras and 0.01 or 1e-3), o.momentum or 0
  local decay = o.weight_decay or 0
  if o.maximize then g = -g end
  if o.keras then p = p - lr * decay * p
  else g = g + decay * p end
  if mu == 0 then return p - lr * g end
  if o.keras then
    s.m = mu * (s.m or 0) - lr * g
    return p + (o.nesterov and mu * s.m - lr * g or s.m)
  end
  s.m = t == 1 and g or mu * s.m + (1 - (o.dampening or 0)) * g
  return p - lr * (o.nesterov and g + mu * s.m or s.m)
end

local function adam(p, s, g, t, o, decoupled, default_decay)
  local lr, eps = o.lr or 1e-3, o.eps or (o.keras and 1e-7 or 1e-8)
  local b1, b2 = table.unpack(o.betas or { 0.9, 0.999 })
  local decay = o.weight_decay or default_decay
  if o.maximize then g = -g end
  if decoupled or o.keras then p = p - lr * decay * p
  else g = g + decay * p end
  s.m = b1 * (s.m or 0) + (1 - b1) * g
  s.v = b2 * (s.v or 0) + (1 - b2) * g * g
  local v = s.v
  if o.amsgrad then
    s.w = math.max(s.w or 0, v)
    v = s.w
  end
  local c1, c2 = 1 - b1 ^ t, 1 - b2 ^ t
  if o.keras then return p - lr * math.sqrt(c2) / c1 * s.m / (math.sqrt(v) + eps) end
  return p - lr * (s.m / c1) / (math.sqrt(v / c2) + eps)
end
function rules.Adam(p, s, g, t, o) return adam(p, s, g, t, o, false, 0) end
function rules.AdamW(p, s, g, t, o) return adam(p, s, g, t, o, true, o.keras and 0.004 or 0.01) end

---g / root, with eps where PyTorch or Keras has it.
local function over_root(g, v, eps, keras)
  return keras and g / math.sqrt(v + eps) or g / (math.sqrt(v) + eps)
end

function rules.RMSprop(p, s, g, _, o)
  local lr, alpha = o.lr or (o.keras and 1e-3 or 1e-2), o.alpha or (o.keras and 0.9 or 0.99)
  local decay, mu = o.weight_decay or 0, o.momentum or 0
  if o.maximize then g = -g end
  if o.keras then p = p - lr * decay * p
  else g = g + decay * p end
  s.v = alpha * (s.v or 0) + (1 - alpha) * g * g
  local v = s.v
  if o.centered then
    s.g = alpha * (s.g or 0) + (1 - alpha) * g
    v = v - s.g * s.g
  end
  local d = over_root(g, v, o.eps or (o.keras and 1e-7 or 1e-8), o.keras)
  s.b = mu * (s.b or 0) + (o.keras and lr or 1) * d
  return p - (o.keras and 1 or lr) * s.b
end

function rules.Adagrad(p, s, g, t, o)
  local lr, decay = o.lr or (o.keras and 1e-3 or 1e-2), o.weight_decay or 0
  if o.maximize then g = -g end
  if o.keras then p = p - lr * decay * p
  else g = g + decay * p end
  s.v = (s.v or o.initial_accumulator_value or (o.keras and 0.1 or 0)) + g * g
  lr = lr / (1 + (t - 1) * (o.lr_decay or 0))
  return p - lr * over_root(g, s.v, o.eps or (o.keras and 1e-7 or 1e-10), o.keras)
end

local cases = {
  { "RMSprop", {} }, { "RMSprop", { lr = 0.1, alpha = 0.8, momentum = 0.5, weight_decay = 0.1 } },
  { "RMSprop", { centered = true, maximize = true } },
  { "RMSprop", { centered = true, momentum = 0.9, eps = 1e-2 } }, { "RMSprop", { keras = true } },
  { "RMSprop", { keras = true, momentum = 0.5, centered = true, weight_decay = 0.1 } },
  { "Adagrad", {} }, { "Adagrad", { lr = 0.1, lr_decay = 0.5, initial_accumulator_value = 0.3 } },
  { "Adagrad", { keras = true, weight_decay = 0.1 } }, { "Adagrad", { maximize = true } },
  { "SGD", {} }, { "SGD", { lr = 0.1, momentum = 0.9 } },
  { "SGD", { lr = 0.1, momentum = 0.9, dampening = 0.3, weight_decay = 0.1 } },
  { "SGD", { lr = 0.1, momentum = 0.9, nesterov = true } },
  { "SGD", { lr = 0.1, weight_decay = 0.2, maximize = true } },
  { "SGD", { keras = true } }, { "SGD", { keras = true, momentum = 0.8, weight_decay = 0.1 } },
  { "SGD", { keras = true, momentum = 0.8, nesterov = true, lr = 0.2 } },
  { "Adam", {} }, { "Adam", { lr = 0.1, betas = { 0.5, 0.8 }, eps = 1e-3 } },
  { "Adam", { lr = 0.1, weight_decay = 0.1, amsgrad = true } }, { "Adam", { maximize = true } },
  { "Adam", { betas = { 0, 0 } } },
  { "Adam", { keras = true } }, { "Adam", { keras = true, weight_decay = 0.1, amsgrad = true } },
  { "AdamW", { lr = 0.1 } }, { "AdamW", { lr = 0.1, weight_decay = 0.3, amsgrad = true } },
  { "AdamW", { lr = 0.1, keras = true } },
}

local function text(options)
  local parts = {}
  for k, v in pairs(options) do
    parts[#parts + 1] = k .. "=" .. (type(v) == "table" and table.concat(v, ",") or tostring(v))
  end
  table.sort(parts)
  return table.concat(parts, " ")
end

local function close(expected, got, tolerance)
  local gap = math.abs(expected - got)
  assert(gap <= tolerance * math.max(1, math.abs(expected)),
    ("%.17g expected, got %.17g"):format(expected, got))
end

---A copy: options tables must stay as they are.
local function copy(t)
  local c = {}
  for k, v in pairs(t) do c[k] = v end
  return c
end

local start = { 0.5, -1.25, 3, 0.001 }
local gradients = { { 0.1, -2, 1e-3, 0 }, { 0.2, 1, -1e-3, 5 }, { -0.4, 0.5, 0, -7 }, { 0, 0, 0, 0 },
  { 1e4, -1e-4, 2, 1 } }

describe("optim: the rules", function()
  for _, case in ipairs(cases) do
    local name, options = case[1], case[2]
    for dtype, tolerance in pairs { float64 = 1e-13, float32 = 3e-6 } do
      it(("%s{ %s } follows its formula in %s"):format(name, text(options), dtype), function()
        local w = lt.variable(start, { dtype = dtype })
        local opt = optim[name](copy(options))
        local p, states = copy(start), { {}, {}, {}, {} }
        for t, g in ipairs(gradients) do
          assert.is_true(opt:apply_gradients({ lt.tensor(g, { dtype = dtype }) }, { w }))
          for i = 1, 4 do p[i] = rules[name](p[i], states[i], g[i], t, options) end
        end
        for i = 1, 4 do close(p[i], w:get(i), tolerance) end
        assert.equal(5, opt.step)
      end)
    end
  end

  it("treats every element alike, whatever the size of the variable", function()
    for _, n in ipairs { 1, 7, 16, 1000, 16384, 40001 } do
      local w = lt.variable(lt.full({ n }, 0.75))
      local one = lt.variable { 0.75 }
      local a, b = optim.Adam { lr = 0.1 }, optim.Adam { lr = 0.1 }
      for k = 1, 3 do
        a:apply_gradients(lt.full({ n }, 0.3 * k), w)
        b:apply_gradients(lt.full({ 1 }, 0.3 * k), one)
      end
      assert.equal(0, (w - one:item()):abs():max():item() // 1e-6)
    end
  end)

  it("gives the same bits for any number of threads", function()
    local threads, results = lt.num_threads(), {}
    lt.manual_seed(5)
    local p, g = lt.randn(300001), lt.randn(300001)
    for i, n in ipairs { 1, 2, 3 } do
      lt.set_num_threads(n)
      local w, b = lt.variable(p), lt.variable { 1, 2 }
      local opt = optim.Adam { lr = 0.1, global_clip_norm = 0.5 }
      for _ = 1, 3 do opt:apply_gradients({ g, lt.tensor { 1, 1 } }, { w, b }) end
      results[i] = w
    end
    lt.set_num_threads(threads)
    assert.is_true(results[1]:eq(results[2]):all():item())
    assert.is_true(results[1]:eq(results[3]):all():item())
  end)

  it("takes strided and broadcast gradients, 0-d and empty variables", function()
    local w, s, e = lt.variable { { 1, 2 }, { 3, 4 } }, lt.variable(1), lt.variable(lt.zeros(0, 3))
    local opt = optim.SGD { lr = 1 }
    local g = lt.tensor { { 1, 2 }, { 3, 4 } }:transpose(1, 2)
    opt:apply_gradients({ g, lt.tensor(0.5), lt.zeros(0, 3) }, { w, s, e })
    assert.same({ { 0, -1 }, { 1, 0 } }, w:totable())
    assert.equal(0.5, s:item())
    opt:apply_gradients({ lt.tensor { 1 }:expand(2, 2) }, { w })
    assert.same({ { -1, -2 }, { 0, -1 } }, w:totable())
  end)

  it("takes a gradient that is the variable itself", function()
    local w = lt.variable { 1, 2 }
    optim.SGD { lr = 0.5 }:apply_gradients(w, w)
    assert.same({ 0.5, 1 }, w:totable())
  end)

  it("takes nested tables, in any form", function()
    local a, b, c = lt.variable { 1 }, lt.variable { 2 }, lt.variable { 3 }
    local vars = { layer = { w = a, b = b }, out = { c } }
    local opt = optim.SGD { lr = 1 }
    opt:apply_gradients({ layer = { w = lt.tensor { 1 }, b = lt.tensor { 2 } }, out = { lt.tensor { 3 } } },
      vars)
    assert.same({ 0, 0, 0 }, { a:item(), b:item(), c:item() })
  end)

  it("counts denormals as zero, and leaves the program's alone", function()
    local w = lt.variable({ 1 }, { dtype = "float32" })
    local opt = optim.SGD { lr = 1, momentum = 0.5 }
    opt:apply_gradients(lt.tensor { 1 }, w)
    for _ = 1, 140 do opt:apply_gradients(lt.tensor { 0 }, w) end
    assert.equal(0, opt:state_dict().state[1].momentum_buffer:item())
    local tiny = 2.0 ^ -1060
    assert.is_true(tiny / 4 > 0)
  end)
end)

-- ---- Clipping ------------------------------------------------------------------------------------

describe("optim: clipping", function()
  local function stepped(options, ...)
    local vars = {}
    for i, g in ipairs { ... } do vars[i] = lt.variable(lt.zeros_like(g)) end
    options.lr = 1
    optim.SGD(options):apply_gradients({ ... }, vars)
    return vars
  end

  it("clips inside the step as the functions do outside", function()
    local a, b = lt.tensor { 3, -4 }, lt.tensor { 12 }
    local v = stepped({ clip_value = 3.5 }, a, b)
    assert.same({ -3, 3.5 }, v[1]:totable())
    assert.same({ -3.5 }, v[2]:totable())
    v = stepped({ clip_norm = 1 }, a, b)
    close(-0.6, v[1]:get(1), 1e-6)
    close(-1, v[2]:item(), 1e-6)
    v = stepped({ global_clip_norm = 1 }, a, b)
    close(4 / 13, v[1]:get(2), 1e-6)
    close(-12 / 13, v[2]:item(), 1e-6)
    v = stepped({ global_clip_norm = 100 }, a, b)
    assert.same({ -3, 4 }, v[1]:totable())
  end)

  it("has TensorFlow's functions, which keep false and are differentiable", function()
    local list, norm = optim.clip_by_global_norm({ lt.tensor { 3, 4 }, false, { x = lt.tensor { 12 } } }, 6.5)
    assert.equal(13, norm:item())
    assert.is_false(list[2])
    assert.same({ 1.5, 2 }, list[1]:totable())
    assert.equal(6, list[3].x:item())
    assert.same({ -1, 1 }, optim.clip_by_value({ lt.tensor { -3, 2 } }, 1)[1]:totable())
    assert.same({ 0, 2 }, optim.clip_by_value(lt.tensor { -3, 2 }, 0, 5):totable())
    local rows = optim.clip_by_norm(lt.tensor { { 3, 4 }, { 0.3, 0.4 } }, 1, { dim = 2 })
    close(0.6, rows:get(1, 1), 1e-6)
    close(0.3, rows:get(2, 1), 1e-6)
    local x = lt.variable { 3, 4 }
    local tape <close> = lt.tape()
    local g = tape:gradient(optim.clip_by_norm(x, 1)[1], x)
    close(16 / 125, g:get(1), 1e-6)
  end)

  it("makes everything NaN when the norm is not finite, as TensorFlow does", function()
    local list, norm = optim.clip_by_global_norm({ lt.tensor { 1, math.huge }, lt.tensor { 1 } }, 1)
    assert.equal(math.huge, norm:item())
    assert.is_true(list[2]:isnan():all():item())
  end)

  it("has PyTorch's clip_grad_norm", function()
    local list, norm = optim.clip_grad_norm({ lt.tensor { 3, -4 } }, 1)
    assert.equal(5, norm:item())
    close(3 / (5 + 1e-6), list[1]:get(1), 1e-6)
    list, norm = optim.clip_grad_norm({ lt.tensor { 3, -4 } }, 2, { norm_type = math.huge })
    assert.equal(4, norm:item())
    close(-2, list[1]:get(2), 1e-6)
  end)
end)

-- ---- Saving ----------------------------------------------------------------------------------------

describe("optim: state_dict", function()
  local function make(name, options)
    local w, b = lt.variable { { 1, 2 }, { 3, 4 } }, lt.variable { 0.5, -0.5 }
    return optim[name](options), { w, b }
  end
  local function run(opt, vars, from, to)
    for k = from, to do
      opt:apply_gradients({ lt.full({ 2, 2 }, 0.1 * k), k % 2 == 0 and lt.full({ 2 }, -0.2 * k) }, vars)
    end
  end

  for _, case in ipairs { { "Adam", { lr = 0.1, amsgrad = true } }, { "AdamW", { lr = 0.1 } },
    { "RMSprop", { centered = true } }, { "Adagrad", { initial_accumulator_value = 1 } },
    { "SGD", { lr = 0.1, momentum = 0.9, dampening = 0.5 } }, { "SGD", { lr = 0.2 } } } do
    it(("continues %s bit for bit"):format(case[1]), function()
      local opt, vars = make(case[1], case[2])
      run(opt, vars, 1, 5)
      local saved, weights = opt:state_dict(), { vars[1]:clone(), vars[2]:clone() }
      run(opt, vars, 6, 9)

      for _, before in ipairs { true, false } do -- into an optimizer that knows its variables or not
        local again, others = make(case[1], { lr = 7 })
        if before then run(again, others, 2, 2) end
        others[1]:assign(weights[1])
        others[2]:assign(weights[2])
        again:load_state_dict(saved)
        assert.equal(5, again.step)
        assert.equal(opt.lr, again.lr)
        run(again, others, 6, 9)
        assert.same(vars[1]:totable(), others[1]:totable())
        assert.same(vars[2]:totable(), others[2]:totable())
      end
    end)
  end

  it("is a snapshot with PyTorch's names", function()
    local opt, vars = make("Adam", { lr = 0.1 })
    run(opt, vars, 1, 1)
    local saved = opt:state_dict()
    local m = saved.state[1].exp_avg:totable()
    run(opt, vars, 2, 3)
    assert.same(m, saved.state[1].exp_avg:totable())
    assert.equal(1, saved.state[1].step)
    assert.is_nil(saved.state[2]) -- never moved
    assert.same({ 1, 2 }, saved.param_groups[1].params)
    assert.equal(0.1, saved.param_groups[1].lr)
    assert.same({ 0.9, 0.999 }, saved.param_groups[1].betas)
  end)

  it("changes nothing when the snapshot does not fit", function()
    local opt, vars = make("Adam", { lr = 0.1 })
    run(opt, vars, 1, 2)
    local saved = opt:state_dict()
    local other = optim.Adam { lr = 0.5 }
    local u, v = lt.variable { { 1, 2 }, { 3, 4 } }, lt.variable { 1, 2, 3 }
    other:apply_gradients({ lt.zeros(2, 2), lt.zeros(3) }, { u, v })
    assert.error_matches(function() other:load_state_dict(saved) end, "exp_avg of variable%[2%] %(3%) is 2")
    assert.equal(0.5, other.lr)
    assert.equal(1, other.step)
    assert.error_matches(function() other:load_state_dict(3) end, "made by state_dict")
    assert.error_matches(function()
      other:load_state_dict { step = 1, state = {}, param_groups = { {}, {} } }
    end, "2 parameter groups, this Adam has 1")
    assert.error_matches(function()
      other:load_state_dict { step = 1, state = {}, param_groups = { { momentum = 1 } } }
    end, "option 'momentum'")
    assert.error_matches(function()
      other:load_state_dict { step = 1, state = { { step = 0.5 } }, param_groups = { {} } }
    end, "count of steps")
  end)
end)

-- ---- Options -----------------------------------------------------------------------------------------

describe("optim: options", function()
  local function refuses(pattern, name, options)
    assert.error_matches(function() optim[name](options) end, pattern)
  end

  it("are checked, by name", function()
    refuses("Adam: lr must be a number of at least 0 .*got %-1", "Adam", { lr = -1 })
    refuses("SGD: lr must be", "SGD", { lr = "fast" })
    refuses("Adam: lr must be", "Adam", { lr = 0 / 0 })
    refuses("betas must be a table of two.*got {0.9, 1}", "Adam", { betas = { 0.9, 1 } })
    refuses("betas must be a table of two", "Adam", { betas = 0.9 })
    refuses("eps must be", "Adam", { eps = -1e-8 })
    refuses("weight_decay must be", "AdamW", { weight_decay = -0.1 })
    refuses("momentum must be", "SGD", { momentum = -0.1 })
    refuses("amsgrad must be true or false, got 1", "Adam", { amsgrad = 1 })
    refuses("nesterov needs a momentum", "SGD", { nesterov = true })
    refuses("nesterov needs a momentum", "SGD", { nesterov = true, momentum = 0.9, dampening = 0.1 })
    refuses("unknown option 'learning_rate'; it has amsgrad, betas,", "Adam", { learning_rate = 1 })
    refuses("unknown option 'momentum'", "Adam", { momentum = 1 })
    refuses("on_nonfinite must be one of: error skip apply", "Adam", { on_nonfinite = "ignore" })
    refuses("clip_norm must be a number above 0", "Adam", { clip_norm = 0 })
    refuses("only one of clip_value", "Adam", { clip_norm = 1, clip_value = 1 })
    refuses("options must be a table, got a number", "Adam", 0.1)
  end)

  it("have PyTorch's defaults, and Keras's when asked", function()
    local adam_options = optim.Adam()
    assert.equal(1e-3, adam_options.lr)
    assert.equal(1e-8, adam_options.eps)
    assert.same({ 0.9, 0.999 }, adam_options.betas)
    assert.equal(0.01, optim.AdamW {}.weight_decay)
    assert.equal(1e-3, optim.SGD {}.lr)
    assert.equal(1e-7, optim.Adam { keras = true }.eps)
    assert.equal(1e-5, optim.Adam { keras = true, eps = 1e-5 }.eps)
    assert.equal(0.004, optim.AdamW { keras = true }.weight_decay)
    assert.equal(0.01, optim.SGD { keras = true }.lr)
  end)

  it("can be read and written, checked in the same way", function()
    local w = lt.variable { 1 }
    local opt = optim.SGD { lr = 1 }
    opt:apply_gradients(lt.tensor { 0.5 }, w)
    opt.lr = 0.5
    opt:apply_gradients(lt.tensor { 0.5 }, w)
    assert.equal(0.25, w:item())
    assert.equal(0.5, opt.lr)
    assert.error_matches(function() opt.lr = -1 end, "lr must be")
    assert.error_matches(function() opt.nesterov = true end, "nesterov needs")
    assert.equal(0.5, opt.lr)
    assert.is_false(opt.nesterov)
    assert.error_matches(function() opt.step = 3 end, "'step' cannot be set")
    assert.error_matches(function() return opt.rate end, "no field or method 'rate'")
    assert.error_matches(function() opt.lrate = 1 end, "'lrate' cannot be set")
    assert.matches("SGD{ lr = 0.5", tostring(opt), 1, true)
  end)

  it("take a learning rate that is a function of the step, counted from 1", function()
    local seen, w = {}, lt.variable { 0 }
    local opt = optim.SGD { lr = function(step)
      seen[#seen + 1] = step
      return step / 10
    end }
    for _ = 1, 3 do opt:apply_gradients(lt.tensor { -1 }, w) end
    assert.same({ 1, 2, 3 }, seen)
    close(0.6, w:item(), 1e-6)
    assert.equal(0.4, opt.lr)
    opt.lr = function() return -1 end
    assert.error_matches(function() opt:apply_gradients(lt.tensor { 1 }, w) end, "lr%(4%) returned %-1")
    opt.lr = 0
    opt:apply_gradients(lt.tensor { 1 }, w)
    close(0.6, w:item(), 1e-6)
  end)

  it("differ by group", function()
    local a, b, c = lt.variable { 0 }, lt.variable { 0 }, lt.variable({ 0 }, { name = "c" })
    local opt = optim.SGD { { params = { a } }, { params = b, lr = 10 }, lr = 1 }
    local g = lt.tensor { -1 }
    opt:apply_gradients({ g, g }, { a, b })
    assert.same({ 1, 10 }, { a:item(), b:item() })
    opt.lr = 2 -- for those without their own
    opt.param_groups[2].momentum = 0.5
    opt:apply_gradients({ g, g }, { a, b })
    assert.same({ 3, 20 }, { a:item(), b:item() })
    assert.equal(10, opt.param_groups[2].lr)
    assert.equal(2, opt.param_groups[1].lr)
    assert.error_matches(function() opt:apply_gradients({ g, g }, { a, c }) end,
      "'c' %(1%) belongs to no parameter group of the SGD made at spec/optim_spec.lua:%d+ %[foreign%]")
    assert.error_matches(function() opt.param_groups[1].lr = -1 end, "lr must be")
    assert.error_matches(function() opt.param_groups[1].size = 1 end, "no option 'size'")
    assert.error_matches(function() optim.SGD { { params = { a } }, { params = { a } } } end,
      "in two parameter groups")
    assert.error_matches(function() optim.SGD { { params = { a }, size = 1 } } end,
      "unknown option 'size' of a group")
  end)
end)

-- ---- Gradients that are missing or wrong ---------------------------------------------------------------

describe("optim: gradients", function()
  local said
  local real_warn = globals.warn
  before_each(function()
    said = {}
    globals.warn = function(...) said[#said + 1] = table.concat { ... } end
  end)
  after_each(function() globals.warn = real_warn end)

  local function fixture(options)
    local w = lt.variable({ 1, 2 }, { name = "w" })
    local b = lt.variable({ 3 }, { name = "b" })
    return optim.Adam(options or { lr = 0.1, weight_decay = 0.5 }), w, b
  end

  it("that are missing leave the variable and its state, and are told once", function()
    local opt, w, b = fixture()
    for _ = 1, 2 do
      local tape <close> = lt.tape()
      opt:apply_gradients(tape:gradient((w * w):sum(), { w, b }), { w, b })
    end
    assert.equal(3, b:item()) -- no decay either
    assert.equal(1, #said)
    assert.matches("'b'", said[1], 1, true)
    assert.matches("[unused]", said[1], 1, true)
    assert.is_nil(opt:state_dict().state[2])
    opt:apply_gradients({ lt.zeros(2), lt.tensor { 1 } }, { w, b })
    close(3 - 0.1, b:item(), 1e-6) -- its own first step
  end)

  it("that are missing on purpose are not told", function()
    local opt, w, b = fixture()
    b.trainable = false
    local tape <close> = lt.tape()
    opt:apply_gradients(tape:gradient((w * b):sum(), { w, b }), { w, b })
    assert.same({}, said)
  end)

  it("that are all missing are an error with the reasons", function()
    local opt, w, b = fixture()
    local loss = (w * b):sum()
    local tape <close> = lt.tape()
    local gs = tape:gradient(loss, { w, b })
    local ok, message = pcall(opt.apply_gradients, opt, gs, { w, b })
    assert.is_false(ok)
    assert.matches("no gradients provided for any variable", message, 1, true)
    assert.matches("[outside-tape]", message, 1, true)
    assert.matches("optim_spec.lua:%d+:", message)
    assert.equal(0, opt.step)
    assert.error_matches(function() opt:apply_gradients({ false, false }, { w, b }) end,
      "no gradient of 'w' %(2%)")
    assert.error_matches(function() opt:apply_gradients(nil, w) end, "no gradient of 'w'")
  end)

  it("that are zero are not missing", function()
    local opt, w = fixture { lr = 0.1, weight_decay = 0.5 }
    opt:apply_gradients({ lt.zeros(2) }, { w })
    assert.is_true(w:get(1) < 1)
  end)

  it("of other shapes, types or numbers are refused by name, without values", function()
    local opt, w, b = fixture()
    local function refuses(pattern, gs, vars)
      local ok, message = pcall(opt.apply_gradients, opt, gs, vars)
      assert.is_false(ok)
      assert.matches(pattern, message)
      assert.same({ 1, 2 }, w:totable())
    end
    refuses("the gradient of 'w' %(2%) is 1; are the gradients in another order.*%[order%]",
      { lt.zeros(1), lt.zeros(2) }, { w, b })
    refuses("gradient of 'w' %(2%) is float64, the variable float32",
      { lt.zeros({ 2 }, { dtype = "float64" }) }, { w })
    refuses("3 gradients for 2 variables", { lt.zeros(2), lt.zeros(1), lt.zeros(1) }, { w, b })
    refuses("gradient of 'w' %(2%) must be a tensor, got a number", { 0.5 }, { w })
    refuses("'w' %(2%) is given twice", { lt.zeros(2), lt.zeros(2) }, { w, w })
    refuses("there are no variables", {}, {})
    refuses("takes variables, or tables of them, got a string", { "w" }, { "w" })
    refuses("takes variables, or tables of them, got nothing", {}, nil)
    refuses("where the variables are a table, the gradients are a", { 3 }, { { w } })
    refuses("is int64; only floats can be trained", { lt.zeros(2) }, { lt.range(1, 2):to "int64" })
    local endless = {}
    endless[1] = endless
    refuses("nest too deeply", endless, endless)
    refuses("strided view", { lt.zeros(2) }, { lt.zeros(2, 2):transpose(1, 2)[1] })
  end)

  for _, value in ipairs { 0 / 0, math.huge, -math.huge } do
    it(("with %s are refused before anything moves"):format(value), function()
      local opt, w, b = fixture()
      local gs = { lt.tensor { 1, 1 }, lt.tensor { value } }
      local ok, message = pcall(opt.apply_gradients, opt, gs, { w, b })
      assert.is_false(ok)
      assert.matches("the gradient of 'b' (1) holds NaN or Inf (1 of 1 elements)", message, 1, true)
      assert.matches("[nonfinite]", message, 1, true)
      assert.same({ 1, 2 }, w:totable())
      assert.equal(0, opt.step)
      assert.same({}, opt:state_dict().state)

      opt = fixture { on_nonfinite = "skip" }
      assert.is_false(opt:apply_gradients(gs, { w, b }))
      assert.same({ 1, 2, 3 }, { w:get(1), w:get(2), b:item() })
      assert.equal(0, opt.step)
      assert.is_true(opt:apply_gradients({ gs[1] }, { w, b }))

      opt = fixture { on_nonfinite = "apply" }
      assert.is_true(opt:apply_gradients(gs, { w, b }))
      assert.is_true(b:item() ~= b:item())
    end)
  end

  it("as large as floats can be are finite", function()
    local w = lt.variable({ 1 }, { dtype = "float64" })
    assert.is_true(optim.Adam {}:apply_gradients(lt.tensor({ 1e300 }, { dtype = "float64" }), w))
  end)

  it("move a variable in place: a gradient that needs its old value says so", function()
    local opt, w = fixture()
    local tape <close> = lt.tape { persistent = true }
    local loss = (w * w):sum()
    opt:apply_gradients(tape:gradient(loss, { w }), { w })
    assert.error_matches(function() tape:gradient(loss, { w }) end, "overwritten")
  end)
end)
