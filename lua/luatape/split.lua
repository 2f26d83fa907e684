--- Ops whose number of results depends on the call: splitting a tensor, grids, and broadcasting
--- tensors to each other. They return lists of views.
local lt, core = ...
local arguments = core.import "luatape.arguments"
local fail, is_tensor = arguments.fail, lt.is_tensor
local methods = core.tensor_meta.__methods

-- ---- Arguments ----------------------------------------------------------------------------------

--- Longer lists are a mistake.
local MOST_PIECES, MOST_DIMS = 1 << 20, 8

local function check_count(op, n)
  if n > MOST_PIECES then fail("%s: %d pieces, at most %d are possible", op, n, MOST_PIECES) end
end

local function check_tensor(op, name, x)
  if not is_tensor(x) then fail("%s: %s must be a tensor, got a %s", op, name, type(x)) end
  if x.is_sparse then fail("%s: %s is a sparse gradient; use x:to_dense()", op, name) end
end

local function check_integer(op, name, n, least)
  local i = math.type(n) and math.tointeger(n)
  if not i then fail("%s: %s must be an integer, got %s", op, name, tostring(n)) end
  if i < least then fail("%s: %s must be at least %d, got %d", op, name, least, i) end
  return i
end

--- The dim as 1..ndim.
local function check_dim(op, x, dim)
  local n = x.ndim
  if n == 0 then fail("%s: x is 0-d and has no dimensions", op) end
  local d = math.type(dim) and math.tointeger(dim)
  if not d then fail("%s: dim must be an integer, got %s", op, tostring(dim)) end
  if d == 0 then fail("%s: dim is 0; they count from 1", op) end
  if d < -n or d > n then fail("%s: dim %d is outside 1..%d (or -%d..-1)", op, d, n, n) end
  return d < 0 and d + n + 1 or d
end

--- Is it a table of named options?
local function is_options(v) return type(v) == "table" and type(next(v)) == "string" end

--- The named values of a call, given by position, by a table of options at the end, or both.
local function read(op, names, ...)
  local given, values, known = { ... }, {}, {}
  local n = select("#", ...)
  while n > 0 and given[n] == nil do n = n - 1 end
  for _, name in ipairs(names) do known[name] = true end
  if is_options(given[n]) then
    for name, value in pairs(arguments.options(op, given[n], known)) do values[name] = value end
    n = n - 1
  end
  for i = 1, n do values[names[i]] = given[i] end
  return values
end

--- A list of integers.
local function check_list(op, name, list, least)
  local result = {}
  for i = 1, #list do result[i] = check_integer(op, ("%s[%d]"):format(name, i), list[i], least) end
  return result
end

--- The tensors of f({a, b}, options) and of f(a, b, options), and the options.
local function read_tensors(op, ...)
  local list, options, given = {}, nil, table.pack(...)
  local at = 1
  if type(given[1]) == "table" and not is_options(given[1]) then
    for i = 1, #given[1] do list[i] = given[1][i] end
    at = 2
  else
    while is_tensor(given[at]) do
      list[at] = given[at]
      at = at + 1
    end
  end
  if type(given[at]) == "table" then
    options = given[at]
    at = at + 1
  end
  for i = at, given.n do
    if given[i] ~= nil then
      fail("%s: takes tensors and a table of options, got a %s", op, type(given[i]))
    end
  end
  if #list == 0 then fail("%s: takes one tensor or more", op) end
  for i, x in ipairs(list) do check_tensor(op, "tensor " .. i, x) end
  return list, options
end

-- ---- Splitting ----------------------------------------------------------------------------------

--- Consecutive pieces of the given lengths along dim.
local function pieces(x, dim, lengths)
  local list, start = {}, 1
  for i, length in ipairs(lengths) do
    list[i] = x:narrow(dim, start, length)
    start = start + length
  end
  return list
end

--- Pieces of one length, of which the last may be shorter; of nothing one empty piece.
local function equal_lengths(n, length)
  local lengths = {}
  for start = 0, n - 1, math.max(length, 1) do lengths[#lengths + 1] = math.min(length, n - start) end
  if #lengths == 0 then lengths[1] = 0 end
  return lengths
end

--- x cut along dim into pieces of one size, of which the last may be smaller, or of the sizes in a
--- list, which make up the whole. The pieces are views. Also a
--- method. PyTorch's split.
---@param x luatape.tensor
---@param split_size_or_sections integer|integer[]
---@param dim integer? default 1
---@return luatape.tensor[]
function lt.split(x, split_size_or_sections, dim)
  check_tensor("split", "x", x)
  local v = read("split", { "split_size_or_sections", "dim" }, split_size_or_sections, dim)
  local sections, lengths = v.split_size_or_sections
  local d = check_dim("split", x, v.dim == nil and 1 or v.dim)
  local n = x.shape[d]
  if sections == nil then fail "split: split_size_or_sections is missing" end
  if type(sections) == "table" then
    local sum = 0
    lengths = check_list("split", "split_size_or_sections", sections, 0)
    for _, length in ipairs(lengths) do sum = sum + length end
    if sum ~= n then
      fail("split: the sections must sum to %d, the size of dim %d; they sum to %d", n, d, sum)
    end
  else
    local size = check_integer("split", "split_size_or_sections", sections, n == 0 and 0 or 1)
    check_count("split", n // math.max(size, 1))
    lengths = equal_lengths(n, size)
  end
  return pieces(x, d, lengths)
end

--- x cut along dim into that many pieces of one size, of which the last may be smaller; fewer where
--- they would be empty. The pieces are views. Also a method. PyTorch's chunk.
---@param x luatape.tensor
---@param chunks integer
---@param dim integer? default 1
---@return luatape.tensor[]
function lt.chunk(x, chunks, dim)
  check_tensor("chunk", "x", x)
  local v = read("chunk", { "chunks", "dim" }, chunks, dim)
  if v.chunks == nil then fail "chunk: chunks is missing" end
  local d = check_dim("chunk", x, v.dim == nil and 1 or v.dim)
  local count, n = check_integer("chunk", "chunks", v.chunks, 1), x.shape[d]
  check_count("chunk", n > 0 and math.min(count, n) or count)
  if n > 0 then return pieces(x, d, equal_lengths(n, n // count + (n % count > 0 and 1 or 0))) end
  local none = {}
  for i = 1, count do none[i] = 0 end
  return pieces(x, d, none)
end

--- x cut along dim into that many pieces, whose sizes differ by at most one; or, with a list, before
--- the elements that it names, each of which begins a piece. The pieces are views. Also a
--- method. PyTorch's tensor_split, in positions that count from 1.
---@param x luatape.tensor
---@param indices_or_sections integer|integer[]
---@param dim integer? default 1
---@return luatape.tensor[]
function lt.tensor_split(x, indices_or_sections, dim)
  check_tensor("tensor_split", "x", x)
  local v = read("tensor_split", { "indices_or_sections", "dim" }, indices_or_sections, dim)
  local sections, list = v.indices_or_sections, {}
  local d = check_dim("tensor_split", x, v.dim == nil and 1 or v.dim)
  local n = x.shape[d]
  if sections == nil then fail "tensor_split: indices_or_sections is missing" end
  if type(sections) ~= "table" then
    local count = check_integer("tensor_split", "indices_or_sections", sections, 1)
    check_count("tensor_split", count)
    for i = 1, count do list[i] = n // count + (i <= n % count and 1 or 0) end
    return pieces(x, d, list)
  end
  local start = 1
  local starts = check_list("tensor_split", "indices_or_sections", sections, math.mininteger)
  for i = 1, #starts + 1 do
    local stop = starts[i] or n + 1
    if stop == 0 then fail "tensor_split: a position is 0; they count from 1" end
    if stop < 0 then stop = stop + n + 1 end
    stop = math.max(1, math.min(stop, n + 1))
    list[i] = x:narrow(d, start, math.max(stop - start, 0))
    start = stop
  end
  return list
end

--- The slices of dimension dim, which goes: x[1], x[2], ... of the first. They are views. Also a
--- method. PyTorch's unbind.
---@param x luatape.tensor
---@param dim integer? default 1
---@return luatape.tensor[]
function lt.unbind(x, dim)
  check_tensor("unbind", "x", x)
  local v = read("unbind", { "dim" }, dim)
  local d = check_dim("unbind", x, v.dim == nil and 1 or v.dim)
  local list = {}
  check_count("unbind", x.shape[d])
  for i = 1, x.shape[d] do list[i] = x:select(d, i) end
  return list
end

for _, name in ipairs { "split", "chunk", "tensor_split", "unbind" } do methods[name] = lt[name] end

-- ---- Broadcasting -------------------------------------------------------------------------------

--- The tensors, each seen in the shape to which all of them broadcast: broadcast_tensors({a, b}) or
--- broadcast_tensors(a, b). They are views. PyTorch's broadcast_tensors.
---@param tensors luatape.tensor[]
---@return luatape.tensor[]
function lt.broadcast_tensors(tensors, ...)
  local list, options = read_tensors("broadcast_tensors", tensors, ...)
  arguments.options("broadcast_tensors", options, {})
  local ndim, size = 0, {}
  for _, x in ipairs(list) do ndim = math.max(ndim, x.ndim) end
  for d = 1, ndim do
    size[d] = 1
    for i, x in ipairs(list) do
      local own = x.shape[d - ndim + x.ndim]
      if d > ndim - x.ndim and own ~= 1 then
        if size[d] ~= 1 and size[d] ~= own then
          fail("broadcast_tensors: shapes do not broadcast (tensor %d has %d where others have %d)",
            i, own, size[d])
        end
        size[d] = own
      end
    end
  end
  local result = {}
  for i, x in ipairs(list) do result[i] = x:expand(size) end
  return result
end

--- The coordinates of a grid: tensor i of n lines varies along dimension i and is repeated along the
--- others. With indexing = "xy" the first two dimensions change places, as one counts columns before
--- rows. meshgrid({a, b}, options) or meshgrid(a, b, options). They are views. PyTorch's meshgrid.
---@param tensors luatape.tensor[] of one dimension or 0-d
---@param options { indexing: "ij"|"xy"? }? default "ij"
---@return luatape.tensor[]
function lt.meshgrid(tensors, options, ...)
  local list, given = read_tensors("meshgrid", tensors, options, ...)
  local indexing = arguments.options("meshgrid", given, { indexing = true }).indexing or "ij"
  if indexing ~= "ij" and indexing ~= "xy" then
    fail("meshgrid: indexing must be one of: ij xy; got %s", tostring(indexing))
  end
  if #list > MOST_DIMS then fail("meshgrid: takes at most %d tensors, got %d", MOST_DIMS, #list) end
  local place, size = {}, {}
  for i, x in ipairs(list) do
    if x.ndim > 1 then
      fail("meshgrid: tensor %d must have one dimension, got %d", i, x.ndim)
    end
    place[i] = i
  end
  if indexing == "xy" and #list > 1 then place[1], place[2] = 2, 1 end
  for i, x in ipairs(list) do size[place[i]] = x:numel() end
  local result = {}
  for i, x in ipairs(list) do
    local own = {}
    for d = 1, #list do own[d] = d == place[i] and size[d] or 1 end
    result[i] = x:reshape(own):expand(size)
  end
  return result
end
