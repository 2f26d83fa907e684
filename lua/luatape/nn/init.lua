--- Neural network modules: PyTorch's names, shapes, initialisers and defaults. A module is a table
--- with a forward, called as a function; it holds parameters and calls the ops.
local _, core = ...
local module = core.import "luatape.nn.module"

---@class luatape.nn
local nn = { init = core.import "luatape.nn.initializers" }

--- A class of modules. Calling it makes a module and runs constructor(self, ...); parameters and
--- modules that are assigned to its fields are found by themselves, in that order (Lua carries out
--- `self.a, self.b = x, y` from right to left). The class's forward is what calling a module does.
---
---     local Net = nn.module("Net", function(self, hidden)
---       self.first = nn.Linear(2, hidden)
---       self.second = nn.Linear(hidden, 1)
---     end)
---     function Net:forward(x) return (self.second(self.first(x):tanh())) end
---     local net = Net(16)
---
---@param name string
---@param constructor fun(self: luatape.nn.module, ...)? must return nothing
---@return luatape.nn.module
function nn.module(name, constructor) return (module.new(name, constructor)) end

for _, part in ipairs { "linear", "container", "functions" } do
  for name, class in pairs(core.import("luatape.nn." .. part)) do nn[name] = class end
end

return nn
