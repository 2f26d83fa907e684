-- The samples that ops carry: Lua argument lists made of generators (normal(3, 4), {dim = 1}),
-- drawn from a seed. The specs of every op and the fuzzer take them apart and vary them.
local lt = require "luatape"
local values = require "spec.values"

local samples = {}

---A stream of random integers that depends on nothing but its seed (splitmix64).
---@return fun(lo: integer, hi: integer): integer
local function integers_from(seed)
  local state = seed
  return function(lo, hi)
    state = state + 0x9E3779B97F4A7C15
    local z = state
    z = (z ~ z >> 30) * 0xBF58476D1CE4E5B9
    z = (z ~ z >> 27) * 0x94D049BB133111EB
    return lo + ((z ~ z >> 31) >> 1) % (hi - lo + 1)
  end
end
samples.random = integers_from

---A number in [0, 1) that a float32 holds exactly.
local function unit(random) return random(0, (1 << 20) - 1) / (1 << 20) end

local function normal_number(random)
  local r = math.sqrt(-2 * math.log(1 - unit(random)))
  return string.unpack("f", string.pack("f", r * math.cos(2 * math.pi * unit(random))))
end

local function filled(shape, dtype, number)
  local count, data = 1, {}
  for _, size in ipairs(shape) do count = count * size end
  for i = 1, count do data[i] = number() end
  return values.tensor { shape = shape, dtype = dtype, data = data }
end

---The generators of samples, drawing from `random`. All float values are exact in float32.
function samples.generators(random)
  local g = {}
  function g.normal(...)
    return filled({ ... }, "float64", function() return normal_number(random) end)
  end
  function g.positive(...)
    return filled({ ... }, "float64", function() return 0.5 + 1.5 * unit(random) end)
  end
  function g.uniform(...)
    return filled({ ... }, "float64", function() return random(-900, 900) / 1024 end)
  end
  function g.integers(lo, hi, ...)
    return filled({ ... }, "int64", function() return random(lo, hi) end)
  end
  function g.mask(...)
    return filled({ ... }, "bool", function() return random(0, 1) == 1 end)
  end
  function g.transposed(...)
    local shape = { ... }
    local n = #shape
    shape[n], shape[n - 1] = shape[n - 1], shape[n]
    return g.normal(table.unpack(shape)):transpose(-2, -1)
  end
  return g
end

---A seed for a name, so that an op's values do not depend on its neighbours.
function samples.seed(name, k)
  local seed = k or 0
  for i = 1, #name do seed = seed * 31 + name:byte(i) end
  return seed
end

---The arguments of sample k of an op, made anew. Variants have other numbers in the same shapes.
---@return table list with its length in n
function samples.draw(op, k, variant)
  local text = op.samples[k]
  local env = samples.generators(integers_from(samples.seed(op.name, k + 1000 * (variant or 0))))
  env.math = math
  return table.pack(assert(load("return " .. text, "=" .. op.name, "t", env))())
end

---A copy of an argument list with `f` applied to each tensor, also inside lists.
function samples.map(arguments, f)
  local copy = { n = arguments.n }
  for i = 1, arguments.n do
    local a = arguments[i]
    if values.is_tensor(a) then
      a = f(a)
    elseif type(a) == "table" and values.is_tensor(a[1]) then
      a = samples.map({ n = #a, table.unpack(a) }, f)
      a.n = nil
    end
    copy[i] = a
  end
  return copy
end

---Is the value a table of named options?
function samples.is_options(v) return type(v) == "table" and type(next(v)) == "string" end

---Takes an argument list apart: inputs as the op declares them, options by name.
---@return table inputs, table options
function samples.split(op, arguments)
  local inputs, options, at = { n = #op.inputs }, {}, 1
  local leading = op.option_at == 1 and op.options[1] -- it stands before all inputs
  if leading then options[leading.name], at = arguments[1], 2 end
  for i, input in ipairs(op.inputs) do
    if input.optional and samples.is_options(arguments[at]) then break end
    inputs[i], at = arguments[at], at + 1
  end
  for k, option in ipairs(op.options) do
    local v = arguments[at]
    if leading and k == 1 then goto next end
    if at > arguments.n or samples.is_options(v) then break end
    at = at + 1
    if type(v) == "number" and (option.type == "dims" or option.type == "sizes") then
      v = { v }
      for _ = at, arguments.n do
        if type(arguments[at]) ~= "number" then break end
        v[#v + 1], at = arguments[at], at + 1
      end
    end
    options[option.name] = v
    ::next::
  end
  if samples.is_options(arguments[at]) then
    for name, v in pairs(arguments[at]) do options[name] = v end
  end
  return inputs, options
end

---The public ops, sorted by name.
function samples.ops()
  local list = {}
  for _, op in pairs(lt.ops) do
    if not op.internal then list[#list + 1] = op end
  end
  table.sort(list, function(a, b) return a.name < b.name end)
  return list
end

return samples
