-- Malformed calls of every op and constructor: samples with arguments replaced, dropped, doubled,
-- retyped, reshaped, made huge or NaN. Lua errors and results are allowed; a crash ends the run.
-- LUATAPE_FUZZ_SEED and LUATAPE_FUZZ_CALLS choose another run, LUATAPE_FUZZ_TRACE=1 writes each
-- call to stderr before it is made.
local lt = require "luatape"
local values = require "spec.values"
local samples = require "spec.samples"

local seed = math.tointeger(os.getenv "LUATAPE_FUZZ_SEED") or 20221103
local calls = math.tointeger(os.getenv "LUATAPE_FUZZ_CALLS") or 5000
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
  function() return pick { print, io.stdout, cyclic, coroutine.create(print), lt, _ENV } end,
  function() return lt.variable(generators.normal(2, 2)) end,
}

function value() return pick(kinds)() end

-- ---- Calls --------------------------------------------------------------------------------------

---Ways to spoil an argument list, in place.
local spoil = {
  function(_, a) -- replace
    if a.n > 0 then a[random(1, a.n)] = value() end
  end,
  function(_, a) -- drop the rest
    a.n = random(0, a.n)
    for i = a.n + 1, a.n + 8 do a[i] = nil end
  end,
  function(_, a) -- one too many
    a.n = a.n + 1
    a[a.n] = value()
  end,
  function(_, a) -- the same twice
    if a.n > 1 then a[random(1, a.n)] = a[random(1, a.n)] end
  end,
  function(_, a) -- another type
    local dtype = pick(dtypes)
    for i = 1, a.n do
      if values.is_tensor(a[i]) and random(0, 1) == 1 then a[i] = a[i]:to(dtype) end
    end
  end,
  function(_, a) -- another tensor
    for i = 1, a.n do
      if values.is_tensor(a[i]) and random(0, 1) == 1 then a[i] = tensor() end
    end
  end,
  function(op, a) -- another option
    if #op.options == 0 then return end
    local last = a[a.n]
    local options = {}
    if samples.is_options(last) then
      for name, v in pairs(last) do options[name] = v end
    else
      a.n = a.n + 1
    end
    options[pick(op.options).name] = value()
    a[a.n] = options
  end,
  function(op, a) -- the same options, huge
    if #op.options == 0 then return end
    a.n = #op.inputs + 1
    a[a.n] = { [pick(op.options).name] = pick(numbers) }
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

---Is this what a user should read, and not an accident inside?
local function is_message(e)
  return type(e) == "string" and not e:find "attempt to" and not e:find "stack overflow"
end

---Makes one call, and walks back from its results. Every failure must be a message.
local function attempt(name, f, a)
  if trace then io.stderr:write(describe_call(name, a), "\n") end
  local function checked(ok, message)
    if not ok and not is_message(message) then
      error(("%s raised: %s"):format(describe_call(name, a), tostring(message)), 0)
    end
    return ok and message
  end
  local tape <close> = lt.tape()
  for i = 1, a.n do
    if values.is_tensor(a[i]) then pcall(tape.watch, tape, a[i]) end
  end
  local result = checked(pcall(f, table.unpack(a, 1, a.n)))
  if values.is_tensor(result) then
    checked(pcall(tape.gradient, tape, result, { a[1], a[2] }, { unconnected_gradients = "zero" }))
  end
end

local function run(list_of_ops, draw)
  for number = 1, calls do
    local op = pick(list_of_ops)
    local a = draw(op)
    for _ = 1, random(1, 3) do pick(spoil)(op, a) end
    local ok, message = pcall(attempt, op.name, lt[op.name], a)
    if not ok then
      error(("seed %d, call %d: %s"):format(seed, number, message), 0)
    end
  end
end

local before = lt.memory().peak

local function memory_is_bounded()
  local peak = lt.memory().peak
  assert(peak < before + MEMORY, ("seed %d: %d bytes at the peak"):format(seed, peak))
  assert.same({ 2, 4, 6 }, (lt.tensor { 1, 2, 3 } * 2):totable())
end

describe("malformed calls", function()
  local ops = {}
  for _, op in ipairs(samples.ops()) do
    if #op.samples > 0 then ops[#ops + 1] = op end
  end

  it("of ops give results or messages", function()
    run(ops, function(op) return samples.draw(op, random(1, #op.samples)) end)
    memory_is_bounded()
  end)

  it("of constructors give results or messages", function()
    local constructors = {}
    for name in ([[tensor variable zeros ones full eye empty range linspace rand randn randint
                   randperm bernoulli]]):gmatch "%S+" do
      if lt[name] then
        constructors[#constructors + 1] =
          { name = name, inputs = {}, options = { { name = "dtype" } } }
      end
    end
    run(constructors, function() return { n = 2, random(0, 3), random(1, 3) } end)
    memory_is_bounded()
  end)

  it("of tapes give results or messages", function()
    local methods = { "watch", "gradient", "explain", "stop", "resume", "reset", "close" }
    for number = 1, calls // 4 do
      local tape = lt.tape { persistent = random(0, 1) == 1 }
      local x = lt.variable(generators.normal(2, 3))
      local y = pick { x, x * 2, tensor() }
      for _ = 1, 3 do
        local name = pick(methods)
        local a = { n = 4, pick { tape, tape, 1 }, pick { y, { y }, value() },
          pick { x, { x }, value() }, value() }
        if random(0, 1) == 1 then a[4] = { output_gradients = pick { y, value() } } end
        local ok, message = pcall(attempt, name, tape[name], a)
        if not ok then error(("seed %d, call %d: %s"):format(seed, number, message), 0) end
      end
      tape:close()
    end
    memory_is_bounded()
  end)

  it("of indexing and of methods give results or messages", function()
    local methods =
      { "get", "set", "item", "totable", "assign", "assign_add", "clone", "to", "detach" }
    for number = 1, calls // 4 do
      local t = tensor()
      local name, a = pick(methods), { n = 3, t, value(), value() }
      local function index() return t[a[2]] end
      local function assign() t[a[2]] = a[3] end
      local f = pick { index, assign, t[name] }
      local ok, message = pcall(attempt, name, f, a)
      if not ok then error(("seed %d, call %d: %s"):format(seed, number, message), 0) end
    end
    memory_is_bounded()
  end)
end)
