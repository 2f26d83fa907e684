-- The globals that the library's own Lua files see: specs put their own warn() there.
local lt = require "luatape"

---An upvalue somewhere below f.
local function environment(f, seen)
  seen = seen or {}
  if type(f) ~= "function" or seen[f] then return nil end
  seen[f] = true
  for i = 1, 255 do
    local name, value = debug.getupvalue(f, i)
    if name == nil then return nil end
    local found = name == "_ENV" and value or environment(value, seen)
    if found then return found end
  end
end
return environment(lt.optim.Adam)
