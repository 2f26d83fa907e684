--- Nested tables of tensors: parameters, results, gradients. Their order is fixed: the list part,
--- then the other keys by name.
local lt, core = ...
local arguments = core.import "luatape.arguments"

local nested = {}

local is_tensor, fail = lt.is_tensor, arguments.fail

--- Tables that hold themselves end here.
local DEEPEST <const> = 100

--- Calls visit(key) for the keys of a table, in order.
local function each_key(t, visit)
  local n, rest = #t, {}
  for i = 1, n do visit(i) end
  for key in pairs(t) do
    if not (math.type(key) == "integer" and key >= 1 and key <= n) then rest[#rest + 1] = key end
  end
  table.sort(rest, function(a, b) return tostring(a) < tostring(b) end)
  for _, key in ipairs(rest) do visit(key) end
end

local function walk(value, visit, op, depth)
  if depth > DEEPEST then fail("%s: tables are nested more than %d deep", op, DEEPEST) end
  if is_tensor(value) then return visit(value) end
  if type(value) ~= "table" then
    fail("%s: takes a tensor or a table of tensors, got %s", op, type(value))
  end
  local copy = {}
  each_key(value, function(key) copy[key] = walk(value[key], visit, op, depth + 1) end)
  return copy
end

--- The same structure, with f(tensor) for each tensor.
---@param value luatape.tensor|table
---@param f fun(t: luatape.tensor): any
---@param op string begins messages
function nested.map(value, f, op) return walk(value, f, op, 1) end

--- All tensors in order.
---@return luatape.tensor[]
function nested.flatten(value, op)
  local flat = {}
  walk(value, function(t) flat[#flat + 1] = t end, op, 1)
  return flat
end

--- The structure of `value` with the items of a list, in order, in the tensors' places.
function nested.rebuild(value, list)
  local at = 0
  return walk(value, function()
    at = at + 1
    return list[at]
  end, "rebuild", 1)
end

return nested
