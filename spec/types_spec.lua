-- Types of results: a table of PyTorch's rules (torch.result_type and the ops' own), written by hand
-- and independent of the engine and of the page that it prints (docs/reference/types.md).
local lt = require "luatape"

local ORDER = { "bool", "uint8", "int32", "int64", "float32", "float64" }
local CATEGORY = { bool = 1, uint8 = 2, int32 = 2, int64 = 2, float32 = 3, float64 = 3 }

-- torch.promote_types, as PyTorch's manual prints it: row and column in ORDER.
local PROMOTED = {
  bool = { "bool", "uint8", "int32", "int64", "float32", "float64" },
  uint8 = { "uint8", "uint8", "int32", "int64", "float32", "float64" },
  int32 = { "int32", "int32", "int32", "int64", "float32", "float64" },
  int64 = { "int64", "int64", "int64", "int64", "float32", "float64" },
  float32 = { "float32", "float32", "float32", "float32", "float32", "float64" },
  float64 = { "float64", "float64", "float64", "float64", "float64", "float64" },
}

local function promote(a, b)
  for i, name in ipairs(ORDER) do
    if name == b then return PROMOTED[a][i] end
  end
end

---The type of operands of ranks ("dims", "single", "number"): the lower rank counts only if it is of a
---higher category.
local function result_type(a, rank_a, b, rank_b)
  local place = { dims = 1, single = 2, number = 3 }
  if place[rank_a] == place[rank_b] then return promote(a, b) end
  if place[rank_a] > place[rank_b] then a, b = b, a end
  return CATEGORY[b] > CATEGORY[a] and b or a
end

local function ones(dtype, rank) return lt.ones(rank == "dims" and { 2 } or {}, { dtype = dtype }) end

---Sums count bools; all else keeps the promoted type.
local function counted(dtype) return dtype == "bool" and "int64" or dtype end

local function each_pair(f)
  for _, a in ipairs(ORDER) do
    for _, b in ipairs(ORDER) do
      for _, ranks in ipairs { { "dims", "dims" }, { "dims", "single" }, { "single", "dims" },
        { "single", "single" } } do
        f(ones(a, ranks[1]), ones(b, ranks[2]), result_type(a, ranks[1], b, ranks[2]),
          ("%s %s and %s %s"):format(ranks[1], a, ranks[2], b))
      end
    end
  end
end

describe("types of results", function()
  it("of two tensors", function()
    local mask = lt.tensor { true, false }
    each_pair(function(x, y, expected, what)
      for _, name in ipairs { "maximum", "minimum" } do
        assert.equal(expected, lt[name](x, y).dtype, name .. " " .. what)
      end
      assert.equal(expected, lt.where(mask, x, y).dtype, "where " .. what)
      for _, name in ipairs { "add", "sub", "mul", "floor_divide", "remainder", "fmod", "pow" } do
        assert.equal(counted(expected), lt[name](x, y).dtype, name .. " " .. what)
      end
      local quotient = CATEGORY[expected] == 3 and expected or "float32"
      for _, name in ipairs { "div", "atan2", "hypot", "logaddexp", "xlogy" } do
        assert.equal(quotient, lt[name](x, y).dtype, name .. " " .. what)
      end
      for _, name in ipairs { "eq", "ne", "lt", "le", "gt", "ge", "logical_and", "logical_or" } do
        assert.equal("bool", lt[name](x, y).dtype, name .. " " .. what)
      end
      if x.ndim == y.ndim and x.ndim > 0 then
        assert.equal(expected, lt.cat({ x, y }).dtype, "cat " .. what)
        assert.equal(expected, lt.stack({ x, y }).dtype, "stack " .. what)
      end
    end)
  end)

  it("of a tensor and a number, on either side", function()
    for _, dtype in ipairs(ORDER) do
      for _, rank in ipairs { "dims", "single" } do
        local x, what = ones(dtype, rank), rank .. " " .. dtype
        local with_integer = CATEGORY[dtype] >= 2 and dtype or "int64"
        local with_float = CATEGORY[dtype] == 3 and dtype or "float32"
        assert.equal(with_integer, (x + 1).dtype, what)
        assert.equal(with_integer, (3 - x).dtype, what)
        assert.equal(with_integer, (x ^ 2).dtype, what)
        assert.equal(with_integer, lt.maximum(x, 1).dtype, what)
        assert.equal(with_float, (x + 1.0).dtype, what)
        assert.equal(with_float, (0.5 * x).dtype, what)
        assert.equal(with_float, (x / 2).dtype, what)
        assert.equal(with_float, lt.where(x:eq(1), x, 0.5).dtype, what)
        assert.equal("bool", x:gt(0.5).dtype, what)
      end
    end
  end)

  it("of numbers and integers follow the default dtype", function()
    lt.set_default_dtype "float64"
    local ok, message = pcall(function()
      local x = lt.ones({ 2 }, { dtype = "int32" })
      assert.equal("float64", (x / 2).dtype)
      assert.equal("float64", (x + 0.5).dtype)
      assert.equal("float64", x:exp().dtype)
      assert.equal("float32", (x:to "float32" + 0.5).dtype)
      assert.equal("float64", lt.tensor({ 1, 2 }).dtype)
    end)
    lt.set_default_dtype "float32"
    assert(ok, message)
  end)

  it("of one tensor", function()
    -- what becomes of bool, uint8, int32, int64, float32, float64
    local same = ORDER
    local floats = { "float32", "float32", "float32", "float32", "float32", "float64" }
    local sums = { "int64", "int64", "int64", "int64", "float32", "float64" }
    local only_floats = { false, false, false, false, "float32", "float64" }
    local function all(dtype) return { dtype, dtype, dtype, dtype, dtype, dtype } end
    local rules = {
      abs = same, amax = same, amin = same, max = same, min = same, sort = same, clone = same,
      reshape = same, flip = same, zeros_like = same, ones_like = same,
      exp = floats, log = floats, sqrt = floats, sin = floats, tanh = floats, sigmoid = floats,
      erf = floats, reciprocal = floats,
      sum = sums, prod = sums, cumsum = sums, cumprod = sums,
      mean = only_floats, var = only_floats, std = only_floats, softmax = only_floats,
      norm = only_floats, logsumexp = only_floats,
      argmax = all "int64", argmin = all "int64", argsort = all "int64", nonzero = all "int64",
      count_nonzero = all "int64",
      any = all "bool", all = all "bool", isnan = all "bool", isfinite = all "bool",
      logical_not = all "bool",
    }
    local arguments = { reshape = { { 2, 1 } }, flip = { 1 }, cumsum = { 1 }, cumprod = { 1 } }
    for name, rule in pairs(rules) do
      for i, dtype in ipairs(ORDER) do
        local ok, y = pcall(lt[name], ones(dtype, "dims"), table.unpack(arguments[name] or {}))
        local what = name .. " of " .. dtype
        if rule[i] then
          assert.equal(rule[i], ok and y.dtype or y, what)
        else
          assert.is_false(ok, what)
          assert.matches(name .. ": ", y, 1, true)
        end
      end
    end
  end)

  it("of places that come with values are int64", function()
    for _, dtype in ipairs(ORDER) do
      local x = ones(dtype, "dims")
      assert.equal("int64", select(2, x:sort()).dtype)
      assert.equal("int64", select(2, x:max(1)).dtype)
      assert.equal("int64", select(2, x:topk(1)).dtype)
    end
  end)

  it("of conversions and assignments", function()
    local x = lt.tensor { 0, 0.5, -2.75, 3 }
    assert.same({ 0, 0, -2, 3 }, x:to("int64"):totable())
    assert.same({ 0, 0, -2, 3 }, x:to("int32"):totable())
    assert.same({ false, true, true, true }, x:to("bool"):totable())
    assert.same({ 0, 0, 2, 3 }, x:abs():to("uint8"):totable())
    local y = lt.zeros({ 4 }, { dtype = "int32" })
    y:assign(x)
    assert.equal("int32", y.dtype)
    assert.same({ 0, 0, -2, 3 }, y:totable())
    y[1] = 7.9
    assert.same({ 7, 0, -2, 3 }, y:totable())
  end)

  it("of calls without a dtype", function()
    assert.equal("float32", lt.tensor({ 1, 2 }).dtype)
    assert.equal("bool", lt.tensor({ true }).dtype)
    assert.equal("float32", lt.zeros(2).dtype)
    assert.equal("float32", lt.rand(2).dtype)
    assert.equal("int64", lt.randint(1, 6, { 2 }).dtype)
    assert.equal("int64", lt.randperm(3).dtype)
  end)
end)
