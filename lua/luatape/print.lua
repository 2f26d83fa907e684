--- Showing tensors: aligned columns, long axes elided, a last line with type, shape and name.
local lt, core = ...
local arguments = core.import "luatape.arguments"

local EDGE = 3 -- entries shown at each end of a long axis
local LONG = 1000 -- elements from which on axes are elided
local WIDTH = 80 -- columns of text

--- Positions shown along an axis of n entries; 0 stands for the dots.
local function positions(n, elide)
  local list = {}
  if not elide or n <= 2 * EDGE then
    for i = 1, n do list[i] = i end
    return list
  end
  for i = 1, EDGE do list[i] = i end
  list[EDGE + 1] = 0
  for i = n - EDGE + 1, n do list[#list + 1] = i end
  return list
end

--- How to write the numbers: a function from number to text, the same for all of them.
local function chooser(values, dtype)
  if dtype == "bool" then return tostring end
  if dtype ~= "float32" and dtype ~= "float64" then
    return function(v) return string.format("%d", v) end
  end
  local whole, largest, smallest = true, 0, math.huge
  for _, v in ipairs(values) do
    if v == v and v ~= math.huge and v ~= -math.huge then
      local a = math.abs(v)
      whole = whole and v == math.floor(v)
      if a > largest then largest = a end
      if a > 0 and a < smallest then smallest = a end
    end
  end
  local form = "%.4f"
  if whole and largest < 1e8 then
    form = "%.0f."
  elseif largest >= 1e5 or (largest > 0 and largest < 1e-3) or smallest < 1e-4 then
    form = "%.4e"
  end
  return function(v)
    if v ~= v then return "nan" end
    if v == math.huge then return "inf" end
    if v == -math.huge then return "-inf" end
    return (string.format(form, v))
  end
end

--- The last line: [float32 3x4 'w' by matmul].
local function summary(t)
  local shape = table.concat(t.shape, "x")
  local parts = { t.dtype, shape == "" and "0-d" or shape }
  if t.name then parts[#parts + 1] = "'" .. t.name .. "'" end
  local maker = core.made_by(t)
  if maker then parts[#parts + 1] = maker end
  return "[" .. table.concat(parts, " ") .. "]"
end

---The line of a sparse gradient: [sparse float32 10000x64, 3 rows].
local function sparse_summary(t, rows)
  return ("[sparse %s %s, %d rows]"):format(t.dtype, table.concat(t.shape, "x"), rows)
end

---@param t luatape.tensor
---@return string
local function tensor_to_string(t)
  local rows = core.sparse_rows(t)
  if rows then return (sparse_summary(t, rows)) end
  local ndim, shape = t.ndim, t.shape
  if t:numel() == 0 then return "{} " .. summary(t) end
  local elide = t:numel() > LONG
  local shown, values, index = {}, {}, {}
  for d = 1, ndim do shown[d] = positions(shape[d], elide) end
  local function collect(d)
    if d > ndim then
      values[#values + 1] = t:get(table.unpack(index))
      return
    end
    for _, i in ipairs(shown[d]) do
      if i > 0 then
        index[d] = i
        collect(d + 1)
      end
    end
  end
  collect(1)
  local text = chooser(values, t.dtype)
  if ndim == 0 then return text(values[1]) .. " " .. summary(t) end
  local width = 0
  for i, v in ipairs(values) do
    values[i] = text(v)
    width = math.max(width, #values[i])
  end
  local per_line = math.max(1, WIDTH // (width + 1))
  local lines, at = {}, 0
  --- One row of the innermost axis, broken into lines where it is too wide.
  local function row()
    local line, count = {}, 0
    for _, i in ipairs(shown[ndim]) do
      if count == per_line then
        lines[#lines + 1] = table.concat(line, " ")
        line, count = { " " }, 1
      end
      if i > 0 then at = at + 1 end
      line[#line + 1] = i > 0 and string.rep(" ", width - #values[at]) .. values[at] or "..."
      count = count + 1
    end
    lines[#lines + 1] = table.concat(line, " ")
  end
  local function block(d, prefix)
    if d == ndim then return row() end
    for _, i in ipairs(shown[d]) do
      if i == 0 then
        lines[#lines + 1] = "..."
      else
        if d == ndim - 2 then
          lines[#lines + 1] = "(" .. prefix .. i .. ",.,.) ="
        end
        block(d + 1, prefix .. i .. ",")
      end
    end
  end
  block(1, "")
  lines[#lines + 1] = summary(t)
  return table.concat(lines, "\n")
end

core.tensor_meta.__tostring = tensor_to_string

--- Is x close to other everywhere: |x - other| <= atol + rtol * |other|? A boolean; true for empty
--- tensors. PyTorch's allclose.
---@param x luatape.tensor|number
---@param other luatape.tensor|number
---@param options { rtol: number?, atol: number?, equal_nan: boolean? }? defaults 1e-5, 1e-8, false
---@return boolean
function lt.allclose(x, other, options)
  return (arguments.within("allclose", function()
    return lt.isclose(x, other, options or {}):all():item()
  end))
end
core.tensor_meta.__methods.allclose = lt.allclose

--- The name in `names` nearest to `word`, if one is near (for "did you mean").
function core.tensor_meta.__nearest(names, word)
  local best, least
  for name in pairs(names) do
    local previous = {}
    for j = 0, #name do previous[j] = j end
    for i = 1, #word do
      local current = { [0] = i }
      for j = 1, #name do
        local cost = word:byte(i) == name:byte(j) and 0 or 1
        current[j] = math.min(previous[j] + 1, current[j - 1] + 1, previous[j - 1] + cost)
      end
      previous = current
    end
    local distance = previous[#name]
    if not least or distance < least or (distance == least and name < best) then
      best, least = name, distance
    end
  end
  if least and least <= math.max(1, #word // 3) then return best end
end

return tensor_to_string
