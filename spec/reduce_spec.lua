-- Reductions, scans, sorts and softmax against plain Lua: every layout of memory, reductions long
-- enough to be cut into blocks, threads, NaN, and what bad arguments are told.
local lt = require "luatape"
local samples = require "spec.samples"

local random = samples.random(20240611)
local generators = samples.generators(random)

local function close(got, expected, tolerance)
  if got ~= got or expected ~= expected then return got ~= got and expected ~= expected end
  return got == expected or math.abs(got - expected) <= tolerance * math.max(1, math.abs(expected))
end

---The elements in row-major order.
local function flat(t) return t:reshape { -1 }:totable() end

---A float64 tensor of 1 to 4 dims that is stored in some other order than its own.
local function any_layout()
  local sizes, order = {}, {}
  for d = 1, random(1, 4) do
    sizes[d] = random(1, 7) == 1 and random(1, 70) or random(1, 6)
    table.insert(order, random(1, d), d)
  end
  local x = generators.normal(table.unpack(sizes))
  local way = random(1, 4)
  if way == 1 then x = x:permute(order) end
  if way == 2 then x = x[{ { 1, -1, 2 } }] end
  if way == 3 then x = x:unsqueeze(1):expand { 3, table.unpack(x.shape) } end
  return x
end

---Calls visit(list) for each result: the elements that go into it, in row-major order.
local function groups(x, reduced)
  local shape, data, lists, order = x.shape, flat(x), {}, {}
  for i = 1, #data do
    local rest, key, scale = i - 1, 0, 1
    for d = #shape, 1, -1 do
      local place = rest % shape[d]
      rest = rest // shape[d]
      if not reduced[d] then
        key = key + place * scale
        scale = scale * shape[d]
      end
    end
    if not lists[key] then
      lists[key] = {}
      order[#order + 1] = key
    end
    table.insert(lists[key], data[i])
  end
  table.sort(order)
  for i, key in ipairs(order) do order[i] = lists[key] end
  return order
end

local function fold(start, step)
  return function(list)
    local state = start
    for _, x in ipairs(list) do state = step(state, x) end
    return state
  end
end

local sum = fold(0, function(s, x) return s + x end)
local function variance(list)
  local mean, square = sum(list) / #list, 0
  for _, x in ipairs(list) do square = square + (x - mean) ^ 2 end
  return square / (#list - 1)
end
local function place(better)
  return function(list)
    local best = 1
    for i, x in ipairs(list) do
      if better(x, list[best]) then best = i end
    end
    return best
  end
end

local reductions = {
  sum = sum,
  mean = function(list) return sum(list) / #list end,
  prod = fold(1, function(s, x) return s * x end),
  amax = fold(-math.huge, math.max),
  amin = fold(math.huge, math.min),
  var = variance,
  std = function(list) return variance(list) ^ 0.5 end,
  logsumexp = function(list)
    return math.log(fold(0, function(s, x) return s + math.exp(x) end)(list))
  end,
  norm = function(list) return fold(0, function(s, x) return s + x * x end)(list) ^ 0.5 end,
  argmax = place(function(a, b) return a > b end),
  argmin = place(function(a, b) return a < b end),
}
local one_dim = { prod = true, argmax = true, argmin = true }

local function check(name, x, dims)
  local reduced = {}
  for _, d in ipairs(dims) do reduced[d] = true end
  local got = flat(lt[name](x, { dim = one_dim[name] and dims[1] or dims }))
  local lists = groups(x, reduced)
  assert.equal(#lists, #got)
  for i, list in ipairs(lists) do
    local expected = reductions[name](list)
    assert(close(got[i], expected, 1e-12),
      ("%s of %s over %s: result %d is %.17g, not %.17g"):format(name, table.concat(x.shape, "x"),
        table.concat(dims, ","), i, got[i], expected))
  end
end

describe("a reduction", function()
  for name in pairs(reductions) do
    it(name .. " is right in every layout", function()
      for _ = 1, 30 do
        local x, dims = any_layout(), {}
        for d = 1, x.ndim do
          if random(1, 2) == 1 then dims[#dims + 1] = d end
        end
        if one_dim[name] or #dims == 0 then dims = { random(1, x.ndim) } end
        check(name, x, dims)
      end
    end)

    it(name .. " is right where it is cut into blocks", function()
      local rows, columns = generators.normal(2, 70000), generators.normal(70000, 3)
      if name == "prod" then rows, columns = rows * 0 + 1.0001, columns * 0 + 1.0001 end
      local tall = columns:transpose():contiguous()
      assert(lt[name](rows, { dim = 2 }):isfinite():all():item())
      for i = 1, 2 do
        local got, expected = flat(lt[name](rows, { dim = 2 }))[i], reductions[name](flat(rows[i]))
        assert(close(got, expected, 1e-9), ("row %d: %.17g, not %.17g"):format(i, got, expected))
      end
      local by_columns, by_rows = flat(lt[name](columns, { dim = 1 })), flat(lt[name](tall, { dim = 2 }))
      for i = 1, 3 do assert(close(by_columns[i], by_rows[i], 1e-9)) end
    end)
  end

  it("adds float32 with care", function()
    assert.equal(2.0 ^ 24 + 8, lt.ones(2 ^ 24 + 8 | 0):sum():item())
    local x = lt.rand(1 << 20)
    local exact = x:to("float64"):sum():item()
    assert(math.abs(x:sum():item() - exact) <= 1e-7 * exact)
    assert(math.abs(x:mean():item() - exact / (1 << 20)) <= 1e-7)
  end)

  it("gives the same bits for every number of threads", function()
    local threads = lt.num_threads()
    local x = lt.randn(300, 5000)
    local first
    for n = 1, 4 do
      lt.set_num_threads(n)
      local all = {}
      for _, name in ipairs { "sum", "var", "norm", "logsumexp" } do
        all[#all + 1] = ("%a"):format(lt[name](x):item())
        for d = 1, 2 do
          for _, v in ipairs(flat(lt[name](x, { dim = { d } }))) do
            all[#all + 1] = ("%a"):format(v)
          end
        end
      end
      for _, v in ipairs(flat(x:softmax(1):sum(2))) do all[#all + 1] = ("%a"):format(v) end
      all = table.concat(all, " ")
      first = first or all
      assert(all == first, "other bits with " .. n .. " threads")
    end
    lt.set_num_threads(threads)
  end)

  it("finds the first of equals, and NaN, in long rows", function()
    local x = lt.zeros(3, 200000)
    x[{ 1, 150000 }] = 1
    x[{ 1, 199000 }] = 1
    x[{ 2, 70001 }] = 0 / 0
    x[{ 2, 70005 }] = 0 / 0
    x[{ 2, 3 }] = math.huge
    assert.same({ 150000, 70001, 1 }, x:argmax(2):totable())
    assert.same({ 150000, 70001, 1 }, x:transpose():contiguous():argmax(1):totable())
    local value, at = x:max(2)
    assert.same({ 150000, 70001, 1 }, at:totable())
    assert.equal(1, value[1]:item())
    assert(value[2]:item() ~= value[2]:item())
    assert.equal(200000 + 70001, x:argmax():item())
  end)

  it("of integers and bools counts in int64", function()
    local x = lt.full({ 300 }, 255, { dtype = "uint8" })
    assert.equal(76500, x:sum():item())
    assert.equal("int64", x:sum().dtype)
    assert.equal("uint8", x:amax().dtype)
    assert.equal(3, lt.tensor({ 1, 0, 2, 3 }):gt(0):sum():item())
    assert.equal(-6, lt.tensor({ -1, 2, 3 }, { dtype = "int32" }):prod():item())
    assert.has_error(function() return x:mean() end)
  end)

  it("of nothing is what is left, or an error", function()
    local x = lt.zeros(0, 3)
    assert.same({ 0, 0, 0 }, x:sum(1):totable())
    assert.same({ 1, 1, 1 }, x:prod(1):totable())
    assert(x:mean():item() ~= x:mean():item())
    assert.equal(-math.huge, x:logsumexp():item())
    assert.equal(0, x:norm():item())
    for _, name in ipairs { "amax", "amin", "max", "min", "argmax", "argmin" } do
      assert.same({ 0 }, lt[name](x, { dim = 2 }).shape)
      for _, options in ipairs { {}, { dim = 1 } } do
        local ok, message = pcall(lt[name], x, options)
        assert(not ok and message:find(name .. ": ", 1, true) and message:find("0x3", 1, true),
          tostring(message))
      end
    end
    assert.has_error(function() return x:norm { p = math.huge } end)
  end)

  it("refuses dims that are none, or come twice", function()
    local x = lt.zeros(2, 3)
    for _, dims in ipairs { { 0 }, { 3 }, { -3 }, { 1, 1 }, { 1, -2 } } do
      local ok, message = pcall(x.sum, x, { dim = dims })
      assert(not ok and message:find("sum: ", 1, true), tostring(message))
    end
  end)
end)

-- ---- Scans --------------------------------------------------------------------------------------

describe("a scan", function()
  local steps = {
    cumsum = function(a, x) return a + x end,
    cumprod = function(a, x) return a * x end,
    cummax = math.max,
    cummin = math.min,
    logcumsumexp = function(a, x) return math.log(math.exp(a) + math.exp(x)) end,
  }
  for name, step in pairs(steps) do
    it(name .. " is right in every layout", function()
      for _ = 1, 20 do
        local x = any_layout()
        local d = random(1, x.ndim)
        local y, at = lt[name](x, d)
        local lines, got = x:transpose(d, -1), y:transpose(d, -1)
        local n, xs, ys = x.shape[d], flat(lines), flat(got)
        local places = at and flat(at:transpose(d, -1))
        for i = 1, #xs do
          local first = (i - 1) % n == 0
          local expected = first and xs[i] or step(ys[i - 1], xs[i])
          assert(close(ys[i], expected, 1e-12))
          if at then assert.equal(ys[i], xs[i - (i - 1) % n - 1 + places[i]]) end
        end
      end
    end)
  end
end)

-- ---- Order --------------------------------------------------------------------------------------

describe("sorting", function()
  ---The places in order, stable; NaN is the largest.
  local function order_of(list, descending)
    local places = {}
    for i = 1, #list do places[i] = i end
    local function key(x) return x ~= x and math.huge or x, x ~= x and 1 or 0 end
    table.sort(places, function(i, j)
      local a, an = key(list[i])
      local b, bn = key(list[j])
      if a ~= b then return descending == (a > b) end
      if an ~= bn then return descending == (an > bn) end
      return i < j
    end)
    return places
  end

  it("is stable for every type, length and direction", function()
    for _, n in ipairs { 1, 2, 47, 48, 49, 800 } do
      for _, dtype in ipairs { "float32", "float64", "int64", "int32", "uint8" } do
        local x = generators.integers(dtype == "uint8" and 0 or -40, 40, n):to(dtype)
        if dtype:find "float" and n > 2 then
          x[2] = 0 / 0
          x[n] = -math.huge
          x[1] = math.huge
        end
        local list = x:totable()
        for _, descending in ipairs { false, true } do
          local values, places = x:sort { descending = descending }
          local expected = order_of(list, descending)
          assert.same(expected, places:totable())
          assert.same(expected, x:argsort { descending = descending }:totable())
          for i, v in ipairs(values:totable()) do
            assert(close(v, list[expected[i]], 0))
          end
          for _, k in ipairs { 1, n // 2, n } do
            local _, top = x:topk { k = k, largest = descending }
            assert.same(table.move(expected, 1, k, 1, {}), top:totable())
          end
        end
      end
    end
  end)

  it("works along every dim", function()
    for _ = 1, 20 do
      local x = any_layout()
      local d = random(1, x.ndim)
      local n = x.shape[d]
      local _, places = x:sort(d)
      local median, at = x:median(d)
      local xs, ps = flat(x:transpose(d, -1)), flat(places:transpose(d, -1))
      local ms, as = flat(median), flat(at)
      local unsqueezed = flat(median:unsqueeze(d):transpose(d, -1))
      assert.equal(#ms, #as)
      for line = 1, #xs // n do
        local list = table.move(xs, (line - 1) * n + 1, line * n, 1, {})
        local expected = order_of(list, false)
        assert.same(expected, table.move(ps, (line - 1) * n + 1, line * n, 1, {}))
        assert.equal(list[expected[(n + 1) // 2]], unsqueezed[line])
      end
    end
  end)

  it("has a median that NaN takes over", function()
    local x = lt.tensor { 3, 1, 0 / 0, 2 }
    assert(x:median():item() ~= x:median():item())
    local value, at = x:median(1)
    assert(value:item() ~= value:item())
    assert.equal(3, at:item())
    assert.equal(2, lt.tensor({ 4, 1, 3, 2 }):median():item())
  end)

  it("refuses more than there is", function()
    for _, k in ipairs { -1, 4, math.maxinteger } do
      local ok, message = pcall(lt.topk, lt.zeros(2, 3), k)
      assert(not ok and message:find("topk: k = ", 1, true), tostring(message))
    end
    assert.same({ 2, 0 }, lt.zeros(2, 3):topk(0).shape)
  end)

  it("finds places in sorted sequences", function()
    local x = lt.tensor { 1, 3, 3, 5 }
    assert.same({ 1, 1, 2, 4, 5 }, lt.searchsorted(x, lt.tensor { 0, 1, 3, 4, 9 }):totable())
    assert.same({ 1, 2, 4, 4, 5 },
      lt.searchsorted(x, lt.tensor { 0, 1, 3, 4, 9 }, { right = true }):totable())
    local two = lt.tensor { { 1, 2 }, { 5, 6 } }
    assert.same({ { 3, 3 }, { 1, 2 } }, lt.searchsorted(two, lt.tensor { { 4, 5 }, { 4, 6 } }):totable())
    assert.has_error(function() return lt.searchsorted(two, lt.tensor { 1 }) end)
  end)
end)

-- ---- Softmax ------------------------------------------------------------------------------------

describe("softmax", function()
  it("is right in every layout and length", function()
    for _ = 1, 20 do
      local x = any_layout()
      local d = random(1, x.ndim)
      local e = x:exp()
      local expected = e / e:sum { dim = { d }, keepdim = true }
      assert((x:softmax(d) - expected):abs():max():item() < 1e-14)
      assert((x:log_softmax(d) - expected:log()):abs():max():item() < 1e-12)
      assert(((-x):softmin(d) - expected):abs():max():item() < 1e-14)
      assert((x:to("float32"):softmax(d):to("float64") - expected):abs():max():item() < 1e-6)
    end
  end)

  it("does not overflow", function()
    local x = lt.tensor { 1000, 0, -1000 }
    assert.same({ 1, 0, 0 }, x:softmax():totable())
    assert.same({ 0, -1000, -2000 }, x:log_softmax():totable())
    assert.equal(1000, x:logsumexp():item())
  end)
end)
