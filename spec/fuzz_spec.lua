-- Malformed calls: of every op, from its samples, and of the functions, methods and objects of the
-- Lua half, with arguments replaced, dropped, doubled, retyped, reshaped, made huge, NaN or foreign.
-- Each must give a result or a message, a string that begins with the op's name and names the
-- argument or the shapes; a crash ends the run. LUATAPE_FUZZ_CALLS refused calls are made (20,000),
-- from LUATAPE_FUZZ_SEED; LUATAPE_FUZZ_TRACE=1 writes each call to stderr before it is made.
local lt = require "luatape"
local values = require "spec.values"
local samples = require "spec.samples"
local lfs = require "lfs"

local seed = math.tointeger(os.getenv "LUATAPE_FUZZ_SEED") or 20221103
local calls = math.tointeger(os.getenv "LUATAPE_FUZZ_CALLS") or 20000
local trace = os.getenv "LUATAPE_FUZZ_TRACE"
local MEMORY = 256 << 20 -- bytes that nothing small needs

local random = samples.random(seed)
local generators = samples.generators(random)

local function pick(list) return list[random(1, #list)] end

-- ---- Values -------------------------------------------------------------------------------------

local numbers = {
  0, 1, 2, 3, -1, -2, 7, 0.5, -0.0, 1e-320, 1e308, -1e308, 1 / 0, -1 / 0, 0 / 0, 2 ^ 53,
  math.maxinteger, math.mininteger, 1 << 40, -(1 << 40), 1 << 62,
}
local strings = { "", "text", "sum", "mean", "none", "float64", "int64", "bool", "%s%n", "\0" }
local dtypes = { "float32", "float64", "int64", "int32", "uint8", "bool" }

local cyclic = {}
cyclic[1] = cyclic

-- Objects of others, open and closed, and our own that are closed or no tensors.
local closed_file = io.tmpfile()
closed_file:close()
local _, open_folder = lfs.dir "."
local _, closed_folder = lfs.dir "."
closed_folder:close()
local closed_tape, open_tape = lt.tape(), lt.tape()
closed_tape:close()
open_tape:stop()
local foreign = {
  print, io.stdout, closed_file, open_folder, closed_folder, closed_tape, open_tape, cyclic,
  coroutine.create(print), lt, _ENV, lt.optim.SGD { lr = 0.1 }, lt.nn.Identity(), lt.ops.add,
}

---Sizes from 0 to 3 and now and then many dims; small, so that only huge options ask for memory.
local function shape()
  local sizes = {}
  for d = 1, random(0, random(1, 6) == 1 and 8 or 4) do sizes[d] = random(0, d > 4 and 1 or 3) end
  return sizes
end

local function relaid(t)
  local way = random(1, 4)
  if way == 1 and t.ndim >= 2 then return t:transpose(-2, -1) end
  if way == 2 then return t:unsqueeze(1):expand(3, table.unpack(t.shape)) end
  if way == 3 and t.ndim > 0 then return t[{ {} }] end
  return t
end

local function tensor()
  local sizes, count, data = shape(), 1, {}
  for _, size in ipairs(sizes) do count = count * size end
  for i = 1, count do data[i] = random(1, 3) == 1 and pick(numbers) + 0.0 or random(-4, 4) + 0.0 end
  local t = values.tensor({ shape = sizes, data = data }, "float64")
  local ok, other = pcall(t.to, t, pick(dtypes))
  t = ok and other or t
  ok, other = pcall(relaid, t)
  return ok and other or t
end

local value

local function list()
  local items = {}
  for i = 1, random(0, 9) do items[i] = value() end
  return items
end

local kinds = {
  tensor, tensor, tensor,
  function() return pick(numbers) end,
  function() return pick(numbers) end,
  function() return pick(strings) end,
  function() return nil end,
  function() return random(0, 1) == 1 end,
  list,
  function() return shape() end,
  function() return { pick(numbers), pick(numbers) } end,
  function() return { tensor(), tensor() } end,
  function() return { [pick(strings)] = pick(numbers) } end,
  function() return pick(foreign) end,
  function() return lt.variable(generators.normal(2, 2)) end,
  function() -- a sparse gradient: all but a few functions refuse it
    local w = lt.variable(generators.normal(3, 2))
    local tape <close> = lt.tape()
    return (tape:gradient(lt.embedding(lt.tensor({ 1, 3, 3 }, { dtype = "int64" }), w,
      { sparse = true }), w))
  end,
}

function value() return pick(kinds)() end

-- ---- Calls --------------------------------------------------------------------------------------

local function is_dense(v) return values.is_tensor(v) and not v.is_sparse end

---The named options of an argument list, for changing.
local function own_options(a)
  local options, last = {}, a[a.n]
  if samples.is_options(last) then
    for name, v in pairs(last) do options[name] = v end
  else
    a.n = a.n + 1
  end
  a[a.n] = options
  return options
end

---Ways to spoil an argument list, in place.
local spoil = {
  function(_, a) -- replace
    if a.n > 0 then a[random(1, a.n)] = value() end
  end,
  function(_, a) -- drop the rest
    a.n = random(0, a.n)
    for i = a.n + 1, a.n + 8 do a[i] = nil end
  end,
  function(_, a) -- too many
    for _ = 1, random(1, 3) do
      a.n = a.n + 1
      a[a.n] = value()
    end
  end,
  function(_, a) -- the same twice
    if a.n > 1 then a[random(1, a.n)] = a[random(1, a.n)] end
  end,
  function(_, a) -- another type
    local dtype = pick(dtypes)
    for i = 1, a.n do
      if is_dense(a[i]) and random(0, 1) == 1 then a[i] = a[i]:to(dtype) end
    end
  end,
  function(_, a) -- another rank
    for i = 1, a.n do
      if is_dense(a[i]) and random(0, 1) == 1 then
        local x = a[i]
        if random(0, 1) == 1 and x.ndim < 8 then a[i] = x:unsqueeze(1)
        elseif x.ndim > 0 and x.shape[1] > 0 then a[i] = x:select(1, 1) end
      end
    end
  end,
  function(_, a) -- another tensor
    for i = 1, a.n do
      if values.is_tensor(a[i]) and random(0, 1) == 1 then a[i] = tensor() end
    end
  end,
  function(_, a) -- huge, negative, not a number
    for i = 1, a.n do
      if is_dense(a[i]) and random(0, 1) == 1 then
        local ok, filled = pcall(lt.full_like, a[i], pick(numbers))
        if ok then a[i] = filled end
      elseif math.type(a[i]) then
        a[i] = pick(numbers)
      end
    end
  end,
  function(op, a) -- another option
    if #op.options > 0 then own_options(a)[pick(op.options).name] = value() end
  end,
  function(op, a) -- a number for an option, often huge
    if #op.options > 0 then own_options(a)[pick(op.options).name] = pick(numbers) end
  end,
  function(_, a) -- options that there are not
    local options = own_options(a)
    for _ = 1, random(1, 3) do options[pick { "nosuch", "axis", "x", "out", "" }] = value() end
  end,
}

local function describe_value(v)
  if values.is_tensor(v) then return tostring(v):match "%[[^\n]*%]%s*$" or "tensor" end
  if type(v) == "number" then return ("%.17g"):format(v) end
  if type(v) == "string" then return ("%q"):format(v) end
  if type(v) ~= "table" or v == cyclic or v == lt or v == _ENV then return tostring(v) end
  local parts = {}
  for key, x in pairs(v) do
    local name = type(key) == "number" and "" or tostring(key) .. " = "
    parts[#parts + 1] = name .. describe_value(x)
  end
  return "{" .. table.concat(parts, ", ") .. "}"
end

local function describe_call(name, a)
  local parts = {}
  for i = 1, a.n do parts[i] = describe_value(a[i]) end
  return ("lt.%s(%s)"):format(name, table.concat(parts, ", "))
end

---The message without the position in front.
local function bare(message) return message:match "^[^\n:]*:%d+: (.*)$" or message end

-- Words that say which argument, besides its name: shapes, types, places.
local SAYING = {
  "%d+x%d+", "0%-d", "shape", "argument", "tensor", "option", "index", "dim", "size", "element",
  "takes ", "table", "number", "dtype", "integer", "rows", "label", "piece", "position",
  "sparse", "float", "differ by sample", "matrix", "does not fit", "singular",
}

---Does the message begin with one of the names, and tell an argument or the shapes? Says what is
---wrong with it.
local function fault_of(message, names, words)
  if type(message) ~= "string" then return "no string" end
  if message:find "attempt to" or message:find "stack overflow" then return "an accident inside" end
  local text = bare(message)
  if text:find "^a tensor has no field " or text:find "^index: " then return nil end
  local head, rest = text:match "^([%w_.:#]+): (.+)$"
  local named = head == "SGD" -- an object among the arguments that answers for itself
  for _, name in ipairs(names) do named = named or head == name end
  if not named then return "does not begin with the name" end
  for _, word in ipairs(words) do
    if rest:find("%f[%w_]" .. word .. "%f[^%w_]") then return nil end
  end
  for _, saying in ipairs(SAYING) do
    if rest:find(saying) then return nil end
  end
  return "names no argument"
end

---A plain failure of a walk back, which may come from any op.
local function accident_of(message)
  if type(message) ~= "string" then return "no string" end
  local inside = message:find "attempt to" or message:find "stack overflow"
  return inside and "an accident inside" or nil
end

---What is called: { name =, options =, names = heads of its messages, words = of its arguments }.
local function subject(name, options, words, more)
  local s = { name = name, options = {}, names = { name }, words = {} }
  for option in (options or ""):gmatch "%S+" do
    table.insert(s.options, { name = option })
    table.insert(s.words, option)
  end
  for word in (words or ""):gmatch "%S+" do table.insert(s.words, word) end
  for other in (more or ""):gmatch "%S+" do table.insert(s.names, other) end
  local op = lt.ops[name]
  if op then
    s.op = op
    for _, input in ipairs(op.inputs) do table.insert(s.words, input.name) end
    for _, o in ipairs(op.options) do table.insert(s.words, o.name) end
  end
  return s
end

---Makes one call and counts it if it is refused; returns what it returned. `fault` judges messages.
local refused = 0
local function call(what, f, a, fault)
  if trace then io.stderr:write(describe_call(what.name, a), "\n") end
  local results = table.pack(pcall(f, table.unpack(a, 1, a.n)))
  if results[1] then return table.unpack(results, 2, results.n) end
  refused = refused + 1
  local message = results[2]
  local wrong = fault(message, what.names, what.words)
  if wrong then
    error(("seed %d, refusal %d: %s: %s: %s"):format(seed, refused, describe_call(what.name, a),
      wrong, tostring(message)), 0)
  end
end

---Makes calls by `once` until a part of all (percent) is refused.
local function until_refused(part, once)
  local first, made = refused, 0
  local wanted = calls * part // 100
  while refused - first < wanted do
    once()
    made = made + 1
    assert(made < 20 * wanted + 100, "hardly any call is refused")
  end
end

local function spoiled(what, a)
  for _ = 1, random(1, 3) do pick(spoil)(what, a) end
  return a
end

---A call under a tape that watches the arguments, and the walk back from its result.
local function call_recorded(what, f, a)
  local tape <close> = lt.tape()
  for i = 1, a.n do
    if values.is_tensor(a[i]) then pcall(tape.watch, tape, a[i]) end
  end
  local result = call(what, f, a, fault_of)
  if values.is_tensor(result) then
    call(what, tape.gradient, { n = 4, tape, result, { a[1], a[2] },
      { unconnected_gradients = "zero" } }, accident_of)
  end
end

local before = lt.memory().peak

local function memory_is_bounded()
  local peak = lt.memory().peak
  assert(peak < before + MEMORY, ("seed %d: %d bytes at the peak"):format(seed, peak))
  assert.same({ 2, 4, 6 }, (lt.tensor { 1, 2, 3 } * 2):totable())
end

-- ---- The Lua half -------------------------------------------------------------------------------

-- Functions that are differentiated do not mind what they get: what is refused is refused by us.
local function energy(...)
  local sum = lt.zeros {}
  for i = 1, select("#", ...) do
    local x = select(i, ...)
    if is_dense(x) and x.dtype:find "^float" then sum = sum + (x * x):sum():to "float32" end
  end
  return sum
end
local function doubled(x) return values.is_tensor(x) and not x.is_sparse and x + x or x end
local function odd() return pick { 1, "text", false, lt.ones(2), print } end

local function matrix() return lt.randn(2, 3) end

---Functions: { subject, a draw of good arguments, further calls of a function that they return }.
local functions = {
  { subject("grad", "", "function argnums"),
    function() return { n = 2, pick { energy, odd }, 1 } end },
  { subject("value_and_grad", "", "function argnums"),
    function() return { n = 2, pick { energy, odd }, pick { 1, { 1, 2 } } } end },
  { subject("vjp", "", "function"),
    function() return { n = 2, pick { energy, doubled, odd }, matrix() } end },
  { subject("jvp", "", "function tangent"), function()
    local x = matrix()
    return { n = 3, pick { energy, doubled }, pick { { x }, x }, pick { { x }, x } }
  end },
  { subject("jacobian", "argnums mode chunk_size", "function"), function()
    local mode = pick { "auto", "forward", "reverse" }
    return { n = 2, pick { doubled, energy, odd }, { mode = mode } }
  end },
  { subject("hessian", "argnums chunk_size", "function", "jacobian"),
    function() return { n = 1, pick { energy, odd } } end },
  { subject("hvp", "", "function x v"),
    function() return { n = 3, energy, matrix(), matrix() } end },
  { subject("vmap", "in_dims out_dims fallback chunk_size", "function batch", "get"), function()
    return { n = 2, pick { doubled, energy, odd }, { in_dims = pick { 1, 2, { 1 } } } }
  end },
  { subject("checkpoint", "", "function"), function() return { n = 2, doubled, matrix() } end },
  { subject("gradcheck", "eps atol rtol", "function input inputs"), function()
    return { n = 2, pick { energy, odd }, { matrix():to "float64" } }
  end },
  { subject("custom_gradient", "", "function"), function()
    return { n = 1, pick { function(x) return x, doubled end, odd } }
  end },
  { subject("split", "split_size_or_sections dim"),
    function() return { n = 3, matrix(), 1, 2 } end },
  { subject("chunk", "chunks dim"), function() return { n = 3, matrix(), 2, 2 } end },
  { subject("tensor_split", "indices_or_sections dim"),
    function() return { n = 3, matrix(), { 2 }, 2 } end },
  { subject("unbind", "dim"), function() return { n = 2, matrix(), 2 } end },
  { subject "broadcast_tensors", function() return { n = 2, matrix(), lt.ones(3) } end },
  { subject("meshgrid", "indexing"), function()
    return { n = 3, lt.ones(2), lt.ones(3), { indexing = "xy" } }
  end },
  { subject("allclose", "rtol atol equal_nan", "x other"),
    function() return { n = 2, matrix(), matrix() } end },
  { subject("tape", "persistent watch_variables"),
    function() return { n = 1, { persistent = true } } end },
  { subject("tensor", "dtype name"), function() return { n = 1, { { 1, 2 }, { 3, 4 } } } end },
  { subject("variable", "dtype name trainable"),
    function() return { n = 1, { { 1, 2 }, { 3, 4 } } } end },
  { subject("manual_seed", "", "seed"), function() return { n = 1, random(0, 9) } end },
  { subject "set_num_threads", function() return { n = 1, random(-1, 2) } end },
  { subject "set_default_dtype", function() return { n = 1, "float32" } end },
  { subject("help", "", "name named"),
    function() return { n = 1, pick { "relu", "grad", "Adam" } } end },
}

local constructors = "zeros ones full eye empty range linspace rand randn randint randperm bernoulli"
for name in constructors:gmatch "%S+" do
  table.insert(functions, { subject(name, "size dtype"), function()
    return { n = 2, random(0, 3), random(1, 3) }
  end })
end

---Functions of the rooms below lt: { subject, function, draw }.
local rooms = {
  { subject("split", "test shuffle seed"), lt.data.split,
    function() return { n = 2, matrix(), { test = 1 } } end },
  { subject("standardize", "", "rows mean std"), lt.data.standardize,
    function() return { n = 1, matrix() } end },
  { subject("batches", "batch shuffle drop_last seed"), lt.data.batches,
    function() return { n = 1, { matrix(), batch = 1 } } end },
  { subject("csv", "header separator skip", "text"), lt.data.parse_csv,
    function() return { n = 2, "1,2\n3,4\n", { header = false } } end },
  { subject("progress", "", "samples"), lt.data.progress, function() return { n = 1, 10 } end },
  { subject("Linear", "bias dtype", "in_features out_features"), lt.nn.Linear,
    function() return { n = 3, 2, 3, { bias = true } } end },
  { subject "Dropout", lt.nn.Dropout, function() return { n = 1, 0.5 } end },
  { subject("Sequential", "", "layer"), lt.nn.Sequential,
    function() return { n = 1, { doubled, lt.nn.ReLU() } } end },
  { subject("module", "", "name constructor"), lt.nn.module,
    function() return { n = 2, "Net", doubled } end },
  { subject("kaiming_uniform_", "a mode nonlinearity"), lt.nn.init.kaiming_uniform_,
    function() return { n = 1, lt.variable(matrix()) } end },
  { subject("xavier_normal_", "gain"), lt.nn.init.xavier_normal_,
    function() return { n = 1, lt.variable(matrix()) } end },
  { subject("normal_", "", "mean std"), lt.nn.init.normal_,
    function() return { n = 3, lt.variable(matrix()), 0, 1 } end },
  { subject("clip_by_value", "", "low high"), lt.optim.clip_by_value,
    function() return { n = 3, matrix(), -1, 1 } end },
  { subject("clip_by_norm", "dim", "clip_norm"), lt.optim.clip_by_norm,
    function() return { n = 2, matrix(), 1 } end },
  { subject("clip_by_global_norm", "", "clip_norm use_norm"), lt.optim.clip_by_global_norm,
    function() return { n = 2, { matrix(), matrix() }, 1 } end },
  { subject "global_norm", lt.optim.global_norm, function() return { n = 1, { matrix() } } end },
}

describe("malformed calls", function()
  local ops = {}
  for _, op in ipairs(samples.ops()) do
    local what = subject(op.name)
    what.options = op.options
    ops[#ops + 1] = what
  end

  it("of ops give results or messages", function()
    until_refused(60, function()
      local what = pick(ops)
      local a = spoiled(what, samples.draw(what.op, random(1, #what.op.samples)))
      call_recorded(what, lt[what.name], a)
    end)
    memory_is_bounded()
  end)

  it("of functions give results or messages", function()
    until_refused(15, function()
      local what, draw = table.unpack(pick(functions))
      local f = lt[what.name]
      local inner = call(what, f, spoiled(what, draw()), fault_of)
      lt.set_default_dtype "float32"
      lt.set_num_threads(1)
      if type(inner) == "function" then
        local a = { n = random(1, 2), pick { matrix, value }(), value() }
        call(what, inner, a, fault_of)
      end
    end)
    memory_is_bounded()
  end)

  it("of modules, data and clipping give results or messages", function()
    until_refused(5, function()
      local what, f, draw = table.unpack(pick(rooms))
      call(what, f, spoiled(what, draw()), fault_of)
    end)
    memory_is_bounded()
  end)

  it("of tapes give results or messages", function()
    local methods = {}
    for name in ([[watch gradient explain stop resume reset close paused jacobian batch_jacobian
                   watched_variables]]):gmatch "%S+" do
      methods[#methods + 1] =
        subject(name, "output_gradients unconnected_gradients chunk_size",
          "target source tape function", "gradient explain jacobian")
    end
    until_refused(8, function()
      local tape = lt.tape { persistent = random(0, 1) == 1 }
      local x = lt.variable(generators.normal(2, 3))
      local y = pick { x, x * 2, tensor() }
      for _ = 1, 3 do
        local what = pick(methods)
        local a = { n = 4, pick { tape, tape, 1, closed_tape }, pick { y, { y }, value() },
          pick { x, { x }, value() }, pick { {}, value() } }
        if random(0, 1) == 1 then a[4] = { output_gradients = pick { y, value() } } end
        call(what, tape[what.name], a, fault_of)
      end
      tape:close()
    end)
    memory_is_bounded()
  end)

  it("of optimizers give results or messages", function()
    local rules = { "SGD", "Adam", "AdamW", "RMSprop", "Adagrad" }
    local x = lt.variable(generators.normal(2, 3))
    until_refused(5, function()
      local name = pick(rules)
      local rule = subject(name, "lr momentum betas eps weight_decay nesterov keras maximize")
      local optimizer = call(rule, lt.optim[name], spoiled(rule, { n = 1, { lr = 0.1 } }), fault_of)
        or lt.optim[name]()
      local method = pick { "apply_gradients", "minimize", "load_state_dict", "state_dict" }
      local good = {
        apply_gradients = { n = 3, optimizer, { lt.ones(2, 3, { dtype = "float64" }) }, { x } },
        minimize = { n = 3, optimizer, function() return energy(x) end, { x } },
        load_state_dict = { n = 2, optimizer, optimizer:state_dict() },
        state_dict = { n = 1, optimizer },
      }
      local what = subject(method, "", "variable variables gradient function optimizer step state",
        name .. " SGD optim gradient apply_gradients")
      call(what, optimizer[method], spoiled(what, good[method]), fault_of)
    end)
    memory_is_bounded()
  end)

  it("of indexing and of methods give results or messages", function()
    local methods = { "get", "set", "item", "totable", "assign", "assign_add", "assign_sub", "clone",
      "to", "detach" }
    until_refused(7, function()
      local t = tensor()
      local name, a = pick(methods), { n = 3, pick { t, t, t, value() }, value(), value() }
      local function index() return t[a[2]] end
      local function assign() t[a[2]] = a[3] end
      local f = pick { index, assign, t[name] }
      local what = subject(name, "", "value mask x",
        "index assign select slice narrow masked_select #")
      call(what, f, a, fault_of)
    end)
    memory_is_bounded()
  end)

  it("were as many as asked for", function()
    assert.is_true(refused >= calls, refused .. " of " .. calls)
  end)
end)
