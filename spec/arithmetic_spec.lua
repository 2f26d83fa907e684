-- Ops of two operands where the golden cases do not look: integers that divide badly, numbers in the
-- place of tensors, promotion, bounds given in every form, and what is refused.
local lt = require "luatape"

local function int(v, dtype) return lt.tensor(v, { dtype = dtype or "int64" }) end
local function double(v) return lt.tensor(v, { dtype = "float64" }) end
local function bool(v) return lt.tensor(v, { dtype = "bool" }) end

local function is(expected, dtype, t)
  assert.same(expected, t:totable())
  assert.equal(dtype, t.dtype)
end

local function fails(pattern, f, ...)
  local fine, message = pcall(f, ...)
  assert.is_false(fine)
  assert.matches(pattern, message)
end

---The gradients of sum(f(...)).
local function gradients(f, ...)
  local sources = { ... }
  local tape <close> = lt.tape()
  for _, x in ipairs(sources) do tape:watch(x) end
  local list = tape:gradient(f(...), sources)
  for i, g in ipairs(list) do list[i] = g and g:totable() end
  return list
end

describe("whole division", function()
  it("stays in integers, and rounds as it says", function()
    local x, y = int { 7, -7, 7, -7 }, int { 2, 2, -2, -2 }
    is({ 3, -4, -4, 3 }, "int64", x // y)
    is({ 3, -4, -4, 3 }, "int64", x:div(y, { rounding_mode = "floor" }))
    is({ 3, -3, -3, 3 }, "int64", x:div(y, { rounding_mode = "trunc" }))
    is({ 1, 1, -1, -1 }, "int64", x % y)
    is({ 1, -1, 1, -1 }, "int64", x:fmod(y))
    is({ 3.5, -3.5, -3.5, 3.5 }, "float32", x / y)
    is({ 0, 3 }, "uint8", int({ 250, 7 }, "uint8") // int({ 255, 2 }, "uint8"))
  end)

  it("of the smallest integer by -1 wraps around", function()
    local x = int { math.mininteger }
    is({ math.mininteger }, "int64", x // -1)
    is({ math.mininteger }, "int64", x:div(-1, { rounding_mode = "trunc" }))
    is({ 0 }, "int64", x % -1)
    is({ 0 }, "int64", x:fmod(-1))
    is({ -2147483648 }, "int32", int({ -2147483648 }, "int32") // -1)
  end)

  it("by zero is an error in integers, and none in floats or where nothing is computed", function()
    local x = int { 1, 2 }
    fails("floor_divide: integer division by zero", function() return x // 0 end)
    fails("remainder: integer division by zero", function() return x % int { 1, 0 } end)
    fails("fmod: integer division by zero", lt.fmod, x, bool { true, false })
    fails("div: integer division by zero", lt.div, x, 0, { rounding_mode = "floor" })
    is({ math.huge, -math.huge }, "float32", lt.tensor { 1, -1 } // 0)
    is({}, "int64", lt.zeros({ 0 }, { dtype = "int64" }) // 0)
  end)
end)

describe("pow", function()
  it("takes numbers on either side", function()
    is({ 2.25, 9 }, "float32", lt.tensor { 1.5, -3 } ^ 2)
    is({ 4, 0.25 }, "float64", 2 ^ double { 2, -2 })
    is({ 9, 9 }, "int64", int { 3, -3 } ^ 2)
    is({ 2, 3 }, "float32", int { 4, 9 } ^ 0.5)
    is({ { 1, 4, 9 } }, "float64", lt.pow(double { 1, 2, 3 }, double { { 2 } }))
  end)

  it("of integers refuses negative exponents", function()
    fails("pow: .*negative exponent", function() return int { 2 } ^ -1 end)
    fails("pow: .*negative exponent", function() return int { 2, 2 } ^ int { 1, -1 } end)
  end)

  it("keeps numbers in full precision for the gradient", function()
    local x = 0.3
    local function near(expected, got) assert.near(expected, got, 1e-15) end
    near(2.2 ^ x * math.log(2.2), gradients(function(t) return 2.2 ^ t end, double { x })[1][1])
    near(2.2 * x ^ 1.2, gradients(function(t) return t ^ 2.2 end, double { x })[1][1])
    near(0.1 / (x * x + 0.01), -gradients(function(t) return lt.atan2(0.1, t) end, double { x })[1][1])
    near(0.7 - 0.1, gradients(function(t) return lt.lerp(0.1, 0.7, t) end, double { x })[1][1])
  end)
end)

describe("clamp", function()
  local x = double { -2, 0.5, 3 }

  it("takes bounds as numbers, tensors and options, one or both", function()
    is({ -1, 0.5, 1 }, "float64", x:clamp(-1, 1))
    is({ -2, 0.5, 1 }, "float64", x:clamp { max = 1 })
    is({ -2, 0, 0 }, "float64", x:clamp(nil, double(0)))
    is({ 0, 0.5, 2 }, "float64", x:clamp(double { 0, 0, 0 }, { max = 2 }))
    is({ 0, 1, 2 }, "int64", int({ -5, 1, 9 }):clamp(0, 2))
    is({ 0.5, 1 }, "float32", int({ -5, 1 }):clamp { min = 0.5 })
    is({ math.mininteger }, "int64", int({ math.mininteger }):clamp { min = -math.huge })
  end)

  it("passes the gradient within one bound up to infinity", function()
    local function f(t) return t:clamp { max = 0 } end
    assert.same({ { 1, 0, 0 } }, gradients(f, double { -math.huge, 0, 1 }))
  end)

  it("refuses to guess", function()
    fails("clamp: min, max or both", lt.clamp, x)
    fails("clamp: lo is given twice", lt.clamp, x, 0, { min = 1 })
    fails("clamp: shapes do not broadcast %(3 and 4%)", lt.clamp, x, nil, lt.zeros(4))
  end)
end)

describe("a choice by mask", function()
  it("promotes what it chooses from, and converts nothing else", function()
    is({ 1, 0 }, "int64", lt.where(bool { true, false }, 1, 0))
    is({ 1.5, 2 }, "float32", lt.where(bool { true, false }, 1.5, int { 1, 2 }))
    is({ -math.huge, 2 }, "float32", lt.tensor({ 1, 2 }):masked_fill(bool { true, false }, -math.huge))
    is({ { 7, 2 }, { 1, 7 } }, "int32",
      int({ 1, 2 }, "int32"):masked_fill(bool { { true, false }, { false, true } }, 7))
  end)

  it("keeps a NaN on the other side out of the gradient", function()
    local mask, nan = bool { true, false }, 0 / 0
    local function f(x, other) return lt.where(mask, x, other) end
    assert.same({ { 1, 0 }, { 0, 1 } }, gradients(f, double { 4, nan }, double { nan, 4 }))
  end)

  it("refuses what does not fit", function()
    fails("where: condition must be bool", lt.where, lt.zeros(2), 1, 0)
    fails("masked_fill: value must be a number", lt.masked_fill, int { 1 }, bool { true }, lt.zeros(1))
    fails("masked_fill: value 1.5 does not fit", lt.masked_fill, int { 1 }, bool { true }, 1.5)
  end)
end)

describe("closeness", function()
  it("counts equal infinities, and NaN when asked", function()
    local inf, nan = math.huge, 0 / 0
    is({ true, true, false, false }, "bool",
      lt.isclose(double { 1, inf, nan, -inf }, double { 1 + 1e-9, inf, nan, inf }))
    is({ true }, "bool", lt.isclose(double { nan }, double { nan }, { equal_nan = true }))
    fails("isclose: rtol = %-1 must be 0 or more", lt.isclose, double { 1 }, 1, { rtol = -1 })
  end)

  it("of all broadcasts, and holds for nothing", function()
    assert.is_true(lt.allclose(double { { 1, 1 }, { 1, 1 + 1e-9 } }, 1))
    assert.is_false(lt.allclose(double { { 1, 1 }, { 1, 2 } }, 1))
    assert.is_true(lt.allclose(lt.zeros(0, 3), lt.zeros(3)))
  end)
end)

describe("a factor", function()
  it("must fit the integers it multiplies", function()
    fails("add: alpha = 0.5 does not fit a result of int64", lt.add, int { 1 }, int { 1 }, { alpha = 0.5 })
    fails("sub: alpha = %-1 does not fit a result of uint8", lt.sub, int({ 1 }, "uint8"),
      int({ 1 }, "uint8"), { alpha = -1 })
    is({ 7 }, "int64", lt.sub(int { 1 }, int { 2 }, { alpha = -3 }))
  end)
end)
