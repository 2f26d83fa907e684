-- Little programs for the specs: text loaded under a file's name, so that call sites are exact.
local lt = require "luatape"

local script = {}

---Loads `text` as the file `name` and returns the function; it sees lt and all globals.
function script.load(name, text, ...)
  local environment = setmetatable({ lt = lt }, { __index = _G })
  for key, value in pairs(... or {}) do environment[key] = value end
  return assert(load(text, "@" .. name, "t", environment))
end

---Runs `text` as the file `name`; what it returns.
function script.run(name, text, names) return script.load(name, text, names)() end

---What `text` raises; it must raise a string.
function script.error(name, text, names)
  local ok, message = pcall(script.load(name, text, names))
  assert(not ok, "nothing was raised")
  assert(type(message) == "string")
  return message
end

---Every one of the words is in the text.
function script.holds(text, ...)
  for _, word in ipairs { ... } do
    if not text:find(word, 1, true) then error(("%q is not in:\n%s"):format(word, text), 2) end
  end
end

return script
