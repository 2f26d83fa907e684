-- The page of types, asked of the engine itself: returns its text. Run by scripts/reference.lua.
local lt = require "luatape"
local dtypes = { "float64", "float32", "int64", "int32", "uint8", "bool" }

local lines = {}
local function say(...) lines[#lines + 1] = table.concat { ... } end

local function row(...) say("| ", table.concat({ ... }, " | "), " |") end

local function header(first, columns)
  local rules = {}
  for i = 1, #columns do rules[i] = "---" end
  row(first, table.unpack(columns))
  row("---", table.unpack(rules))
end

-- The dtype of the first result, or that there is none.
local function result_of(f, ...)
  local ok, y = pcall(f, ...)
  return ok and y.dtype or "error"
end

local function ones(dtype) return lt.ones({ 2 }, { dtype = dtype }) end
local function single(dtype) return lt.ones({}, { dtype = dtype }) end

-- ---- Promotion ----------------------------------------------------------------------------------

say [[
There are three categories: bool < integers (uint8, int32, int64) < floats (float32, float64). Tensors
with dimensions decide, then 0-d tensors, then plain numbers: an operand of a lower rank changes the
type only if it is of a higher category, as in PyTorch. An integer number is of the category of
integers, as int64; any other number is of the category of floats, as the default dtype
(lt.set_default_dtype; float32 at first). Arithmetic on bools counts: bool + bool is int64, where
PyTorch says bool.
]]

local function promotion(title, left_title, right_title, left, right)
  say("## ", title, "\n")
  header(left_title .. " + " .. right_title, dtypes)
  for _, a in ipairs(dtypes) do
    local cells = {}
    for i, b in ipairs(dtypes) do cells[i] = result_of(lt.add, left(a), right(b)) end
    row("**" .. a .. "**", table.unpack(cells))
  end
  say()
end
promotion("Two tensors with dimensions", "tensor", "tensor", ones, ones)
promotion("A tensor with dimensions and a 0-d tensor", "tensor", "0-d", ones, single)
promotion("Two 0-d tensors", "0-d", "0-d", single, single)

say "## A tensor and a number\n"
header("", { "with dimensions + 1", "with dimensions + 0.5", "0-d + 1", "0-d + 0.5" })
for _, a in ipairs(dtypes) do
  row("**" .. a .. "**", result_of(lt.add, ones(a), 1), result_of(lt.add, ones(a), 0.5),
    result_of(lt.add, single(a), 1), result_of(lt.add, single(a), 0.5))
end
say()

-- ---- Ops by kinds -------------------------------------------------------------------------------

say [[
## What ops make of each type

The type of the first result, for a tensor x of each type. Functions of floats turn integers and
bools into the default dtype, or refuse them ("error"), as PyTorch's mean does.
]]
local mask = lt.tensor { true, false }
local kinds = {
  { "`x + x`, `x - x`, `x * x`", lt.add, lt.sub, lt.mul },
  { "`-x`", lt.neg },
  { "`x / x`", lt.div },
  { "`x // x`, `x % x`", lt.floor_divide, lt.remainder },
  { "`x ^ 2`", function(x) return x ^ 2 end },
  { "`x ^ 0.5`", function(x) return x ^ 0.5 end },
  { "abs, sign, square", lt.abs, lt.sign, lt.square },
  { "floor, ceil, round, trunc", lt.floor, lt.ceil, lt.round, lt.trunc },
  { "exp, log, sqrt, sin, erf", lt.exp, lt.log, lt.sqrt, lt.sin, lt.erf },
  { "relu", lt.relu },
  { "sigmoid, tanh", lt.sigmoid, lt.tanh },
  { "maximum, minimum", lt.maximum, lt.minimum },
  { "eq, ne, lt, le, gt, ge", lt.eq, lt.ne, lt.lt, lt.le, lt.gt, lt.ge },
  { "logical_and, logical_not", lt.logical_and, lt.logical_not },
  { "isnan, isfinite", lt.isnan, lt.isfinite },
  { "where(mask, x, x)", function(x) return lt.where(mask, x, x) end },
  { "where(mask, x, 0.5)", function(x) return lt.where(mask, x, 0.5) end },
  { "clamp(x, {min = 0})", function(x) return lt.clamp(x, { min = 0 }) end },
  { "sum, prod", lt.sum, lt.prod },
  { "cumsum, cumprod", function(x) return lt.cumsum(x, 1) end,
    function(x) return lt.cumprod(x, 1) end },
  { "mean, var, std", lt.mean, lt.var, lt.std },
  { "norm, softmax, logsumexp", lt.norm, lt.softmax, lt.logsumexp },
  { "amax, amin, max, min, sort", lt.amax, lt.amin, lt.max, lt.min, lt.sort },
  { "argmax, argmin, argsort", lt.argmax, lt.argmin, lt.argsort },
  { "any, all", lt.any, lt.all },
  { "count_nonzero, nonzero", lt.count_nonzero, lt.nonzero },
  { "matmul, dot", lt.matmul, lt.dot },
  { "cat with float32", function(x) return lt.cat { x, ones "float32" } end },
  { "cat with int32", function(x) return lt.cat { x, ones "int32" } end },
}
header("x is", dtypes)
for _, kind in ipairs(kinds) do
  local cells = {}
  for i, dtype in ipairs(dtypes) do
    local x = ones(dtype)
    for k = 2, #kind do
      local found = result_of(kind[k], x, x)
      if found == "error" then found = result_of(kind[k], x) end -- an op of one tensor
      cells[i] = cells[i] or found
      if found ~= cells[i] then
        error(("types: %s do not agree on %s: %s, %s"):format(kind[1], dtype, cells[i], found), 0)
      end
    end
  end
  row(kind[1], table.unpack(cells))
end
say()

-- ---- Conversions --------------------------------------------------------------------------------

say [[
## Making and converting

What a call without a dtype makes:
]]
header("call", { "type" })
for _, call in ipairs {
  "lt.tensor {1, 2}", "lt.tensor {0.5, 2}", "lt.tensor {true, false}", "lt.zeros(2)", "lt.ones(2)",
  "lt.full({2}, 3)", "lt.full({2}, 0.5)", "lt.eye(2)", "lt.range(1, 5)",
  "lt.range(0, 1, 0.25)", "lt.linspace(0, 1, 5)", "lt.rand(2)", "lt.randn(2)", "lt.randint(1, 6, {2})",
  "lt.randperm(5)",
} do
  row("`" .. call .. "`", result_of(assert(load("local lt = ...; return " .. call)), lt))
end
say()
say [[
`x:to(dtype)` converts: floats lose their fraction on the way to integers, and whatever is not 0 is
true. `x:assign(y)` and `x[index] = y` convert y to the type of x.
]]
local values = { 0, 0.5, 2.75, 3 }
header("`lt.tensor {0, 0.5, 2.75, 3}` as", { "values" })
for _, dtype in ipairs(dtypes) do
  local texts = {}
  for i, v in ipairs(lt.tensor(values):to(dtype):totable()) do texts[i] = tostring(v) end
  row("**" .. dtype .. "**", table.concat(texts, ", "))
end

return table.concat(lines, "\n")
