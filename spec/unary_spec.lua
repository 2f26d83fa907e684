-- Functions of one variable beyond what their samples show: precision in float32 over the whole
-- range, derivatives of third order, integer inputs, dropout.
local lt = require "luatape"

local INF, NAN = math.huge, 0 / 0

---Floats from many binades, of both signs: k * 2^e for odd k.
local function floats()
  local list = { 0, INF, -INF, NAN }
  for e = -149, 127, 2 do
    for k = 1, 19, 2 do
      local x = k * 2.0 ^ e / 16
      if x < 2 ^ 127 then list[#list + 1], list[#list + 2] = x, -x end
    end
  end
  for i = -4000, 4000 do list[#list + 1] = i / 37 end -- where the functions bend
  return lt.tensor(list, { dtype = "float32" })
end

---The size of the last place of |y| as a float32.
local function place(y)
  if y < 2 ^ -126 then return 2.0 ^ -149 end
  return 2.0 ^ (math.floor(math.log(y, 2) + 1e-9) - 23)
end

-- Errors in units of the last place: stated in kernels/math.h, and the rounding of the reference.
local ULP = { exp = 1.1, expm1 = 1.7, log = 1, log1p = 1.6, tanh = 2.7, sigmoid = 2.5, erf = 1.3 }

describe("float32", function()
  local x = floats()
  for name, ulp in pairs(ULP) do
    it(name .. " is precise everywhere", function()
      local got = lt[name](x):totable()
      local reference = lt[name](x:to "float64"):totable()
      for i, y in ipairs(reference) do
        local z = got[i]
        if y ~= y then
          assert(z ~= z, ("%s(%a) is %a, not NaN"):format(name, x:get(i), z))
        elseif math.abs(y) > 3.4028234e38 then
          assert(math.abs(z) > 3.402823e38 and (z > 0) == (y > 0), ("%s(%a) is %a"):format(name, x:get(i), z))
        else
          assert(math.abs(z - y) <= ulp * place(math.abs(y)),
            ("%s(%a) is %a, expected %a"):format(name, x:get(i), z, y))
        end
      end
    end)
  end

  it("reaches into the denormals", function()
    local y = lt.exp(lt.tensor{ -100, -103, -103.9, -104, -1e30 }):totable()
    assert.same({ 27 * 2.0 ^ -149, 2.0 ^ -149, 2.0 ^ -149, 0.0, 0.0 },
      { y[1], y[2], y[3], y[4], y[5] })
    assert.near(math.log(2) * -149, lt.log(lt.tensor{ 2.0 ^ -149 }):get(1), 1e-5)
  end)
end)

describe("higher derivatives", function()
  ---The n-th derivative of f at x, by nested tapes.
  local function derivative(f, x, n)
    if n == 0 then return f(x) end
    local tape <close> = lt.tape()
    tape:watch(x)
    return tape:gradient(derivative(f, x, n - 1), x, { unconnected_gradients = "zero" })
  end

  local names = [[tanh sigmoid gelu silu mish softplus elu celu selu exp expm1 log log1p log2 log10
    sqrt rsqrt reciprocal square sin cos tan asin acos atan sinh cosh asinh atanh erf erfc erfinv
    lgamma digamma logit logsigmoid softsign tanhshrink hardswish]]
  for name in names:gmatch "%S+" do
    it("are right to the third order for " .. name, function()
      local x, h = lt.tensor({ 0.3, 0.37, 0.62, 0.81 }, { dtype = "float64" }), 2.0 ^ -16
      for order = 2, 3 do
        local got = derivative(lt[name], x, order)
        local above, below = derivative(lt[name], x + h, order - 1), derivative(lt[name], x - h, order - 1)
        local expected = (above - below) / (2 * h)
        local error = ((got - expected):abs() / (expected:abs() + 1)):max():item()
        assert(error < 1e-6, ("order %d is wrong by %g"):format(order, error))
      end
    end)
  end

  it("do not cancel in float32 where the function is nearly straight", function()
    local x = lt.linspace(-8, 8, 999):to "float32"
    for name, f in pairs{ mish = lt.mish, silu = lt.silu,
      gelu = function(a) return lt.gelu(a, { approximate = "tanh" }) end } do
      local error = (derivative(f, x, 2) - derivative(f, x:to "float64", 2)):abs():max():item()
      assert(error < 1e-6, ("the second derivative of %s is wrong by %g"):format(name, error))
    end
  end)

  it("of steps are zero, not missing", function()
    local x = lt.tensor{ -1, 2 }
    for _, name in ipairs{ "relu", "relu6", "hardtanh", "hardshrink", "abs", "floor", "sign" } do
      assert.same({ 0.0, 0.0 }, derivative(lt[name], x, 2):totable())
    end
  end)
end)

describe("integers", function()
  it("stay integers where the result is one", function()
    local x = lt.tensor({ -3, 0, 2 }, { dtype = "int32" })
    for name, expected in pairs{ abs = { 3, 0, 2 }, sign = { -1, 0, 1 }, square = { 9, 0, 4 },
      relu = { 0, 0, 2 }, floor = { -3, 0, 2 }, ceil = { -3, 0, 2 }, trunc = { -3, 0, 2 },
      round = { -3, 0, 2 } } do
      local y = lt[name](x)
      assert.equal("int32", y.dtype)
      assert.same(expected, y:totable())
    end
    local big = lt.tensor({ math.maxinteger }, { dtype = "int64" })
    assert.equal(math.maxinteger, lt.round(big):get(1))
  end)

  it("become floats elsewhere", function()
    local y = lt.sqrt(lt.tensor({ 4, 9 }, { dtype = "int64" }))
    assert.equal("float32", y.dtype)
    assert.same({ 2.0, 3.0 }, y:totable())
  end)

  it("are not rounded to tens", function()
    local x = lt.tensor({ 15 }, { dtype = "int64" })
    assert.has_error(function() lt.round(x, { decimals = -1 }) end)
    assert.same({ 20.0 }, lt.round(lt.tensor{ 15 }, { decimals = -1 }):totable())
  end)
end)

describe("polygamma", function()
  it("has the values of its series", function()
    local at = function(n, x) return lt.polygamma(lt.tensor({ x }, { dtype = "float64" }), { n = n }):get(1) end
    local zeta3, pi = 1.2020569031595942, math.pi
    assert.near(pi ^ 2 / 6, at(1, 1), 1e-14)
    assert.near(-2 * zeta3, at(2, 1), 1e-14)
    assert.near(pi ^ 4, at(3, 0.5), 1e-12)
    assert.near(-2 * zeta3 + 2, at(2, 2), 1e-14)
    assert.near(-2 * zeta3 - 2 / (-0.5) ^ 3 - 12 * zeta3, at(2, -0.5), 1e-12)
    assert.equal(-INF, at(2, 0))
    assert.equal(0.0, at(4, INF))
  end)
end)

describe("dropout", function()
  local x = lt.randn(300, 100)

  it("keeps a share of 1 - p, scaled, and passes their gradient alone", function()
    lt.manual_seed(5)
    local tape <close> = lt.tape()
    tape:watch(x)
    local y = lt.dropout(x, { p = 0.3 })
    local factor = tape:gradient(y, x)
    assert.is_true((factor * x):isclose(y):all():item())
    local kept = factor:ne(0)
    assert.near(0.7, kept:to("float32"):mean():item(), 0.01)
    assert.is_true(factor:isclose(kept:to "float32" / 0.7):all():item())
  end)

  it("draws anew at each call, and again after the same seed, for any number of threads", function()
    local threads = lt.num_threads()
    lt.manual_seed(5)
    local first, second = lt.dropout(x), lt.dropout(x)
    assert.is_false(first:eq(second):all():item())
    lt.set_num_threads(1)
    lt.manual_seed(5)
    assert.is_true(first:eq(lt.dropout(x)):all():item())
    lt.set_num_threads(threads)
  end)

  it("ends where p does", function()
    assert.same({ 0.0, 0.0 }, lt.dropout(lt.tensor{ 1, 2 }, { p = 1 }):totable())
    assert.same({ 1.0, 2.0 }, lt.dropout(lt.tensor{ 1, 2 }, { p = 0 }):totable())
    assert.same({ 1.0, 2.0 }, lt.dropout(lt.tensor{ 1, 2 }, { training = false }):totable())
    for _, p in ipairs{ -0.1, 1.5, NAN } do
      assert.has_error(function() lt.dropout(x, { p = p }) end)
    end
  end)
end)
