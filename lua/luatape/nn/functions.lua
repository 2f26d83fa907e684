--- Modules without parameters: an op with its options, under PyTorch's name.
local lt, core = ...
local arguments = core.import "luatape.arguments"
local module = core.import "luatape.nn.module"

local functions = {}

--- Module, op, and the option that may be given without its name.
local of_one = {
  { "ReLU", "relu" }, { "Tanh", "tanh" }, { "Sigmoid", "sigmoid" },
  { "GELU", "gelu", "approximate" }, { "Softmax", "softmax", "dim" },
  { "LogSoftmax", "log_softmax", "dim" }, { "Softmin", "softmin", "dim" }, { "SiLU", "silu" },
  { "ELU", "elu", "alpha" }, { "SELU", "selu" }, { "LeakyReLU", "leaky_relu", "negative_slope" },
  { "ReLU6", "relu6" }, { "Softplus", "softplus" }, { "Softsign", "softsign" },
  { "Mish", "mish" }, { "Hardswish", "hardswish" }, { "Hardsigmoid", "hardsigmoid" },
  { "Hardtanh", "hardtanh" }, { "LogSigmoid", "logsigmoid" }, { "GLU", "glu", "dim" },
}

--- Of a prediction and a target.
local of_two = {
  { "MSELoss", "mse_loss" }, { "CrossEntropyLoss", "cross_entropy" }, { "NLLLoss", "nll_loss" },
}

--- The options by name, checked against what the op's block declares.
local function read_options(class, op, positional, options)
  if options == nil then return nil end
  if type(options) ~= "table" and positional then options = { [positional] = options } end
  local known = {}
  for _, option in ipairs(lt.ops[op].options) do known[option.name] = true end
  return (arguments.options(class, options, known))
end

local function options_text(options)
  local parts = {}
  for name, value in pairs(options or {}) do
    if not lt.is_tensor(value) then parts[#parts + 1] = name .. "=" .. tostring(value) end
  end
  table.sort(parts)
  return table.concat(parts, ", ")
end

local function of_op(class, op, positional)
  local made = module.new(class, function(self, options)
    rawset(self, "options", read_options(class, op, positional, options))
  end)
  function made:extra_repr() return (options_text(self.options)) end
  functions[class] = made
  return made, lt[op]
end

for _, entry in ipairs(of_one) do
  local class, f = of_op(table.unpack(entry))
  function class:forward(x) return (f(x, self.options)) end
end

for _, entry in ipairs(of_two) do
  local class, f = of_op(table.unpack(entry))
  function class:forward(input, target) return (f(input, target, self.options)) end
end

-- ---- Those that do more ------------------------------------------------------------------------

--- Sets elements to 0 with probability p and scales the others by 1 / (1 - p), in training only:
--- nn.Dropout(p) or nn.Dropout{p = 0.5}. Srivastava et al. 2014.
---@class luatape.nn.Dropout: luatape.nn.module
---@overload fun(options: number|{ p: number? }?): luatape.nn.Dropout
local Dropout = module.new("Dropout", function(self, options)
  if type(options) ~= "table" then options = { p = options } end
  options = arguments.options("Dropout", options, { p = true })
  local p = options.p or 0.5
  if math.type(p) == nil or not (p >= 0 and p <= 1) then
    arguments.fail("Dropout: p must be a number between 0 and 1, got %s", tostring(p))
  end
  self.p = p
end)
function Dropout:forward(x)
  if not self.training then return x end
  return (lt.dropout(x, { p = self.p }))
end
function Dropout:extra_repr() return ("p=%g"):format(self.p) end
functions.Dropout = Dropout

--- Merges the dimensions start_dim (default 2: all but the batch's) to end_dim (default -1).
---@class luatape.nn.Flatten: luatape.nn.module
---@overload fun(options: { start_dim: integer?, end_dim: integer? }?): luatape.nn.Flatten
local Flatten = module.new("Flatten", function(self, options)
  options = arguments.options("Flatten", options, { start_dim = true, end_dim = true })
  for name, dim in pairs(options) do
    if math.type(dim) ~= "integer" or dim == 0 then
      arguments.fail("Flatten: %s must be a dimension, got %s", name, tostring(dim))
    end
  end
  self.start_dim, self.end_dim = options.start_dim or 2, options.end_dim or -1
end)
function Flatten:forward(x)
  local shape, ndim = x.shape, x.ndim
  local first = self.start_dim < 0 and self.start_dim + ndim + 1 or self.start_dim
  local last = self.end_dim < 0 and self.end_dim + ndim + 1 or self.end_dim
  if first < 1 or last > ndim or first > last then
    arguments.fail("Flatten: dims %d to %d do not fit a tensor of %d dimensions", self.start_dim,
      self.end_dim, ndim)
  end
  local merged = 1
  for d = first, last do merged = merged * shape[d] end
  local sizes = { table.unpack(shape, 1, first - 1) }
  sizes[first] = merged
  table.move(shape, last + 1, ndim, first + 1, sizes)
  return (x:reshape(sizes))
end
function Flatten:extra_repr()
  return ("start_dim=%d, end_dim=%d"):format(self.start_dim, self.end_dim)
end
functions.Flatten = Flatten

--- Gives back what it is given.
---@class luatape.nn.Identity: luatape.nn.module
---@overload fun(): luatape.nn.Identity
local Identity = module.new("Identity")
function Identity.forward(_, ...) return ... end
functions.Identity = Identity

return functions
