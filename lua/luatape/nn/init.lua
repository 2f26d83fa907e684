--- Neural network modules: PyTorch's names, shapes, initialisers and defaults. A module is a table
--- with a forward, called as a function; it holds parameters and calls the ops.
local _, core = ...
local module = core.import "luatape.nn.module"

---@class luatape.nn
local nn = { module = module.new, init = core.import "luatape.nn.initializers" }

for _, part in ipairs { "linear", "container", "functions" } do
  for name, class in pairs(core.import("luatape.nn." .. part)) do nn[name] = class end
end

return nn
