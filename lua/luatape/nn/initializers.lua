--- Initialisers of weights, PyTorch's names and formulas. They write in place, draw from the
--- context's stream of random numbers, and return the tensor.
local lt, core = ...
local arguments = core.import "luatape.arguments"
local fail, check_number = arguments.fail, arguments.number

---@class luatape.nn.init
local initializers = {}

local function check(op, t)
  if not lt.is_tensor(t) or t.is_sparse then
    fail("%s: takes a tensor, got %s", op, lt.is_tensor(t) and "a sparse gradient" or type(t))
  end
end

local function fill(t, value)
  t:assign(value)
  return t
end

local function draw(op, t, random, scale, shift)
  return (arguments.within(op, function()
    return fill(t, random(t.shape, { dtype = t.dtype }) * scale + shift)
  end))
end

--- Uniform numbers in [a, b).
---@param t luatape.tensor
---@param a number? default 0
---@param b number? default 1
---@return luatape.tensor
function initializers.uniform_(t, a, b)
  check("uniform_", t)
  a, b = check_number("uniform_", "a", a or 0), check_number("uniform_", "b", b or 1)
  if a > b then fail("uniform_: the bounds %g and %g are not in order", a, b) end
  return (draw("uniform_", t, lt.rand, b - a, a))
end

--- Normal numbers.
---@param t luatape.tensor
---@param mean number? default 0
---@param std number? default 1
---@return luatape.tensor
function initializers.normal_(t, mean, std)
  check("normal_", t)
  mean, std = check_number("normal_", "mean", mean or 0), check_number("normal_", "std", std or 1, 0)
  return (draw("normal_", t, lt.randn, std, mean))
end

--- The same number everywhere.
---@param t luatape.tensor
---@param value number
---@return luatape.tensor
function initializers.constant_(t, value)
  check("constant_", t)
  return (arguments.within("constant_", function() return fill(t, lt.full_like(t, value)) end))
end

--- Zeros.
---@param t luatape.tensor
---@return luatape.tensor
function initializers.zeros_(t)
  check("zeros_", t)
  return (fill(t, lt.zeros_like(t)))
end

--- Ones.
---@param t luatape.tensor
---@return luatape.tensor
function initializers.ones_(t)
  check("ones_", t)
  return (fill(t, lt.ones_like(t)))
end

--- How much a nonlinearity shrinks a signal, inverted.
---@param nonlinearity string linear, sigmoid, tanh, relu, leaky_relu or selu
---@param a number? the slope of leaky_relu, default 0.01
---@return number
function initializers.calculate_gain(nonlinearity, a)
  if nonlinearity == "linear" or nonlinearity == "sigmoid" then return 1 end
  if nonlinearity == "tanh" then return 5 / 3 end
  if nonlinearity == "relu" then return math.sqrt(2) end
  if nonlinearity == "leaky_relu" then return math.sqrt(2 / (1 + (a or 0.01) ^ 2)) end
  if nonlinearity == "selu" then return 3 / 4 end
  fail("calculate_gain: no nonlinearity '%s'; there are linear, sigmoid, tanh, relu, leaky_relu, "
    .. "selu", tostring(nonlinearity))
end

--- Inputs and outputs per unit of a weight (out, in, ...).
local function fans(op, t)
  check(op, t)
  local shape = t.shape
  if #shape < 2 then fail("%s: takes a weight of 2 or more dimensions, got %d", op, #shape) end
  local field = 1
  for d = 3, #shape do field = field * shape[d] end
  return shape[2] * field, shape[1] * field
end

--- uniform: by its bound; normal: by its standard deviation.
local function with_deviation(op, t, std, uniform)
  if uniform then return (draw(op, t, lt.rand, 2 * math.sqrt(3) * std, -math.sqrt(3) * std)) end
  return (draw(op, t, lt.randn, std, 0))
end

local function kaiming(op, t, options, uniform)
  options = arguments.options(op, options, { a = true, mode = true, nonlinearity = true })
  local fan_in, fan_out = fans(op, t)
  local mode = options.mode or "fan_in"
  if mode ~= "fan_in" and mode ~= "fan_out" then
    fail("%s: mode must be fan_in or fan_out, got %s", op, tostring(mode))
  end
  local slope = check_number(op, "a", options.a or 0)
  local gain = arguments.within(op, initializers.calculate_gain, options.nonlinearity or "leaky_relu",
    slope)
  return (with_deviation(op, t, gain / math.sqrt(mode == "fan_in" and fan_in or fan_out), uniform))
end

--- Uniform with standard deviation gain / sqrt(fan). He et al. 2015, arXiv 1502.01852.
---@param t luatape.tensor (out, in, ...)
---@param options { a: number?, mode: string?, nonlinearity: string? }? slope of leaky_relu
---  (default 0); "fan_in" (default) or "fan_out"; default "leaky_relu"
---@return luatape.tensor
function initializers.kaiming_uniform_(t, options)
  return (kaiming("kaiming_uniform_", t, options, true))
end

--- The same with normal numbers.
---@param t luatape.tensor
---@param options { a: number?, mode: string?, nonlinearity: string? }?
---@return luatape.tensor
function initializers.kaiming_normal_(t, options)
  return (kaiming("kaiming_normal_", t, options, false))
end

local function xavier(op, t, options, uniform)
  local fan_in, fan_out = fans(op, t)
  local gain = arguments.options(op, options, { gain = true }).gain or 1
  check_number(op, "gain", gain)
  return (with_deviation(op, t, gain * math.sqrt(2 / (fan_in + fan_out)), uniform))
end

--- Uniform with standard deviation gain sqrt(2 / (fan_in + fan_out)). Glorot and Bengio 2010.
---@param t luatape.tensor (out, in, ...)
---@param options { gain: number? }? default 1
---@return luatape.tensor
function initializers.xavier_uniform_(t, options)
  return (xavier("xavier_uniform_", t, options, true))
end

--- The same with normal numbers.
---@param t luatape.tensor
---@param options { gain: number? }?
---@return luatape.tensor
function initializers.xavier_normal_(t, options)
  return (xavier("xavier_normal_", t, options, false))
end

return initializers
