-- Tensors as plain tables { shape =, dtype =, data = } in row-major order, and comparing them:
-- what golden files hold, and what the specs look at instead of trusting the engine's own ops.
local lt = require "luatape"

local values = {}

values.is_tensor = lt.is_tensor

---Calls an engine function; a table of results (split, chunk) is spread out.
---@return table list of results, `n` of them
function values.results(f, ...)
  local r = table.pack(f(...))
  if r.n == 1 and type(r[1]) == "table" then return table.pack(table.unpack(r[1])) end
  return r
end

local function nest(shape, data, level, at)
  if level > #shape then return data[at], at + 1 end
  local rows = {}
  for i = 1, shape[level] do rows[i], at = nest(shape, data, level + 1, at) end
  return rows, at
end

-- 0/0 has the sign bit set on some machines; copysign sees it.
local POSITIVE_NAN = string.unpack("<d", string.pack("<I8", 0x7FF8000000000000))

---The tensor that a plain table describes. `dtype` is used where the table names none.
function values.tensor(t, dtype)
  dtype = t.dtype or dtype
  if #t.data == 0 then return lt.zeros(t.shape, { dtype = dtype }) end
  local data = {}
  for i, v in ipairs(t.data) do
    if v ~= v then v = POSITIVE_NAN end
    data[i] = v
    if dtype == "bool" and type(v) == "number" then data[i] = v ~= 0 end
  end
  return lt.tensor((nest(t.shape, data, 1, 1)), { dtype = dtype })
end

local function flatten(x, data)
  if type(x) ~= "table" then data[#data + 1] = x
  else for _, row in ipairs(x) do flatten(row, data) end end
  return data
end

---The plain table of a tensor.
function values.read(tensor)
  local shape = {}
  for i, size in ipairs(tensor.shape) do shape[i] = size end
  local data = {}
  if tensor:numel() > 0 then flatten(tensor:totable(), data) end
  return { shape = shape, dtype = tensor.dtype, data = data }
end

local function is_float(dtype) return dtype == "float32" or dtype == "float64" end

local function same(got, ref, tol)
  if got == ref then return true end
  if type(got) ~= "number" or type(ref) ~= "number" then return false end
  if ref ~= ref or got ~= got then return ref ~= ref and got ~= got end
  if ref - ref ~= 0 or got - got ~= 0 then return false end
  return tol ~= nil and math.abs(got - ref) <= tol.atol + tol.rtol * math.abs(ref)
end

local function shape_text(shape) return "{" .. table.concat(shape, ",") .. "}" end

---What is wrong with a tensor, or nil. Without `tol` every value must be equal.
---@param what string begins the message
---@param got any
---@param ref table a plain table
---@param dtype string? expected where ref names none
---@param tol table? { rtol =, atol = }, for floats
---@return string?
function values.difference(what, got, ref, dtype, tol)
  if not values.is_tensor(got) then return what .. ": no tensor, but " .. tostring(got) end
  local expected = ref.dtype or dtype
  if got.dtype ~= expected then
    return ("%s: is %s, expected %s"):format(what, got.dtype, expected)
  end
  local plain = values.read(got)
  local shape, ref_shape = shape_text(plain.shape), shape_text(ref.shape)
  if shape ~= ref_shape then
    return ("%s: has shape %s, expected %s"):format(what, shape, ref_shape)
  end
  if #plain.data ~= #ref.data then
    return ("%s: has %d values, expected %d"):format(what, #plain.data, #ref.data)
  end
  if not is_float(expected) then tol = nil end
  local wrong, first = 0, nil
  for i, expected_value in ipairs(ref.data) do
    if expected == "bool" and type(expected_value) == "number" then
      expected_value = expected_value ~= 0
    end
    if not same(plain.data[i], expected_value, tol) then
      wrong = wrong + 1
      first = first or { i, plain.data[i], expected_value }
    end
  end
  if not first then return nil end
  local function text(v) return type(v) == "number" and ("%.17g"):format(v) or tostring(v) end
  return ("%s: %d of %d values differ; number %d is %s, expected %s"):format(
    what, wrong, #ref.data, first[1], text(first[2]), text(first[3]))
end

return values
