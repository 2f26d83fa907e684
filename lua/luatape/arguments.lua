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
  if type(options) ~= "table" or getmetatable(options) ~= nil then
    arguments.fail("%s: options must be a table, got a %s", op,
      type(options) == "table" and "table with a metatable" or type(options))
  end
  for key in pairs(options) do
    if known[key] == nil then
      arguments.fail("%s: unknown option '%s'; it has %s", op, tostring(key), arguments.list(known))
    end
  end
  return options
end

--- A number of at least `least`, if that is given.
---@param op string begins the message
---@param name string
---@param value any
---@param least number?
---@return number
function arguments.number(op, name, value, least)
  if math.type(value) == nil or (least and not (value >= least)) then
    arguments.fail("%s: %s must be a number%s, got %s", op, name,
      least and (" of at least %g"):format(least) or "", tostring(value))
  end
  return value
end

--- f(...) for an op that is made of others: what one of those refuses, it refuses.
---@param op string begins the message
---@param f function
function arguments.within(op, f, ...)
  local results = table.pack(pcall(f, ...))
  if results[1] then return table.unpack(results, 2, results.n) end
  local message = results[2]
  local inner = type(message) == "string" and message:gsub("^[^\n:]*:%d+: ", "")
  if not inner or not inner:find "^[%w_]+: " or inner:sub(1, #op + 1) == op .. ":" then
    error(message, 0)
  end
  arguments.fail("%s: %s", op, inner)
end

return arguments
