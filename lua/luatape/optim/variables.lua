--- Nested tables of variables, and how messages speak of them.
local lt, core = ...
local is_tensor = lt.is_tensor

local variables = {}

--- Tables of variables may nest this deep; deeper ones contain themselves.
local DEEPEST <const> = 64

local function walk(value, g, place, f, depth)
  if is_tensor(value) then return f(value, g, place) end
  if depth > DEEPEST then core.fail("optim: tables of variables nest too deeply") end
  if type(value) ~= "table" then
    core.fail(("optim: takes variables, or tables of them; %s is a %s"):format(place, type(value)))
  end
  local n, keys = #value, {}
  for i = 1, n do walk(value[i], g and g[i], ("%s[%d]"):format(place, i), f, depth + 1) end
  for key in pairs(value) do
    if not (math.type(key) == "integer" and key >= 1 and key <= n) then keys[#keys + 1] = key end
  end
  table.sort(keys, function(a, b) return tostring(a) < tostring(b) end)
  for _, key in ipairs(keys) do
    walk(value[key], g and g[key], place .. "." .. tostring(key), f, depth + 1)
  end
end

--- Calls f(tensor, its entry of gs, place) for the tensors of a nested table: the list part in
--- order, then the other keys by name. gs is nil or of the same shape.
function variables.each(value, gs, f) walk(value, gs, "variable", f, 0) end

---"3x4"
function variables.shape_text(shape) return #shape > 0 and table.concat(shape, "x") or "0-d" end

---"'dense.weight' (3x4)"
function variables.label(v, place)
  return ("%s (%s)"):format(v.name and "'" .. v.name .. "'" or place or "a variable",
    variables.shape_text(v.shape))
end

--- What gs knows of v's gradient.
---@return string text
---@return string? code
---@return luatape.why?
function variables.reason(gs, v, place)
  local why = type(gs) == "table" and gs.why and gs:why(v)
  if why then return tostring(why), why.code, why end
  return "no gradient of " .. variables.label(v, place)
end

return variables
