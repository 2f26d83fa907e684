--- Modules made of modules.
local _, core = ...
local arguments = core.import "luatape.arguments"
local module = core.import "luatape.nn.module"

--- Layers one after the other: nn.Sequential{ a, b } or nn.Sequential(a, b). A layer is a module
--- or a function of one tensor; m[1] is the first.
---@class luatape.nn.Sequential: luatape.nn.module
---@overload fun(...: luatape.nn.module|function|table): luatape.nn.Sequential
local Sequential = module.new("Sequential", function(self, ...)
  local layers = table.pack(...)
  if layers.n == 1 and type(layers[1]) == "table" and not module.is_layer(layers[1]) then
    layers = layers[1]
  end
  for i = 1, layers.n or #layers do self:append(layers[i]) end
end)

--- Adds a layer at the end; returns the module.
function Sequential:append(layer)
  if not module.is_layer(layer) then
    arguments.fail("Sequential: layer %d must be a module or a function, got %s", #self + 1,
      type(layer))
  end
  self[#self + 1] = layer
  return self
end

function Sequential:forward(x)
  for i = 1, #self do x = self[i](x) end
  return x
end

return { Sequential = Sequential }
