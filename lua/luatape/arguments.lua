--- Checking arguments in the Lua half: errors at the user's line, tables of options.
local _, core = ...

local arguments = {}

--- Raises the formatted message with the user's position, as the ops do.
---@param format string
function arguments.fail(format, ...) core.fail(string.format(format, ...)) end

--- "3x4", or "0-d".
---@param t luatape.tensor
function arguments.shape_text(t) return t.ndim > 0 and table.concat(t.shape, "x") or "0-d" end

--- The names of the tables' keys, sorted, for messages.
---@param ... table<string, any>
---@return string
function arguments.list(...)
  local list = {}
  for _, names in ipairs { ... } do
    for name in pairs(names) do list[#list + 1] = tostring(name) end
  end
  table.sort(list)
  return table.concat(list, ", ")
end

--- The options given (a new table if none); one that is not known is an error listing those.
---@param op string begins the message
---@param options table?
---@param known table<string, any>
---@return table
function arguments.options(op, options, known)
  if options == nil then return {} end
  if type(options) ~= "table" then
    arguments.fail("%s: options must be a table, got a %s", op, type(options))
  end
  for key in pairs(options) do
    if known[key] == nil then
      arguments.fail("%s: unknown option '%s'; it has %s", op, tostring(key), arguments.list(known))
    end
  end
  return options
end

return arguments
