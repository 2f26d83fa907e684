--- Affine maps.
local lt, core = ...
local arguments = core.import "luatape.arguments"
local module = core.import "luatape.nn.module"
local init = core.import "luatape.nn.initializers"

local function check_size(name, value)
  if math.type(value) ~= "integer" or value < 1 then
    arguments.fail("Linear: %s must be an integer above 0, got %s", name, tostring(value))
  end
end

--- y = x W^T + b: nn.Linear(in_features, out_features [, {bias = true, dtype =}]).
--- weight (out, in) begins as kaiming_uniform_ with a = sqrt 5, bias (out) uniform within
--- 1 / sqrt(in), as in PyTorch. x is (..., in), y (..., out).
---@class luatape.nn.Linear: luatape.nn.module
---@field weight luatape.tensor
---@field bias luatape.tensor?
---@overload fun(in_features: integer, out_features: integer, options: table?): luatape.nn.Linear
local Linear = module.new("Linear", function(self, in_features, out_features, options)
  check_size("in_features", in_features)
  check_size("out_features", out_features)
  options = arguments.options("Linear", options, { bias = true, dtype = true })
  local empty = { dtype = options.dtype }
  self.in_features, self.out_features = in_features, out_features
  arguments.within("Linear", function()
    self.weight = lt.variable(lt.zeros({ out_features, in_features }, empty))
    init.kaiming_uniform_(self.weight, { a = math.sqrt(5) })
  end)
  if options.bias == false then return end
  local bound = 1 / math.sqrt(in_features)
  self.bias = lt.variable(lt.zeros({ out_features }, empty))
  init.uniform_(self.bias, -bound, bound)
end)

local linear = lt.linear

function Linear:forward(x) return (linear(x, self.weight, self.bias)) end

function Linear:extra_repr()
  return ("in_features=%d, out_features=%d, bias=%s"):format(self.in_features, self.out_features,
    tostring(self.bias ~= nil))
end

return { Linear = Linear }
