-- Pooling against plain loops over windows: sizes, values, places and gradients, on a grid of
-- options; what wins among NaN, infinities and equals; what is refused.
local lt = require "luatape"
local values = require "spec.values"
local samples = require "spec.samples"

-- ---- The reference ------------------------------------------------------------------------------

---An axis { n =, k =, s =, p =, d =, out = } by PyTorch's rule for sizes.
local function axis(n, k, s, p, d, ceil_mode)
  local room = n + 2 * p - d * (k - 1) - 1
  local out = (ceil_mode and -(-room // s) or room // s) + 1
  if ceil_mode and (out - 1) * s >= n + p then out = out - 1 end
  return { n = n, k = k, s = s, p = p, d = d, out = out }
end

---An axis whose windows adapt.
local function adaptive(n, out) return { n = n, out = out } end

---Places 0..n-1 that output o (from 0) sees, and how many a mean counts with padding.
local function seen(a, o)
  local list = {}
  if not a.k then
    for i = o * a.n // a.out, -(-(o + 1) * a.n // a.out) - 1 do list[#list + 1] = i end
    return list, #list
  end
  local start = o * a.s - a.p
  for t = 0, a.k - 1 do
    local i = start + t * a.d
    if i >= 0 and i < a.n then list[#list + 1] = i end
  end
  return list, math.min(start + a.k, a.n + a.p) - start
end

local NONE = { n = 1, k = 1, s = 1, p = 0, d = 1, out = 1 }

---Calls f(plane, output, places in the plane, size with padding) for all outputs, numbers from 0.
local function each_window(planes, axes, f)
  local a = { NONE, NONE, NONE }
  for i, x in ipairs(axes) do a[3 - #axes + i] = x end
  local output = 0
  for plane = 0, planes - 1 do
    for od = 0, a[1].out - 1 do
      local deep, deep_size = seen(a[1], od)
      for oh = 0, a[2].out - 1 do
        local rows, rows_size = seen(a[2], oh)
        for ow = 0, a[3].out - 1 do
          local columns, columns_size = seen(a[3], ow)
          local places = {}
          for _, d in ipairs(deep) do
            for _, h in ipairs(rows) do
              for _, w in ipairs(columns) do
                places[#places + 1] = (d * a[2].n + h) * a[3].n + w
              end
            end
          end
          f(plane, output, places, deep_size * rows_size * columns_size)
          output = output + 1
        end
      end
    end
  end
end

---Results, places from 1, and the gradient of sum_k dy_k y_k; all as lists.
local function reference(kind, x, dy, planes, axes, options)
  local size, y, place, dx = 1, {}, {}, {}
  for _, a in ipairs(axes) do size = size * a.n end
  for i = 1, planes * size do dx[i] = 0 end
  each_window(planes, axes, function(plane, o, places, padded)
    local base = plane * size + 1
    if kind == "max" then
      local best, at = -math.huge, nil
      for _, i in ipairs(places) do
        local v = x[base + i]
        if not at or v > best or v ~= v then best, at = v, i end
      end
      y[o + 1], place[o + 1] = best, at and at + 1 or 0
      if at then dx[base + at] = dx[base + at] + dy(o + 1) end
    else
      local sum = 0
      for _, i in ipairs(places) do sum = sum + x[base + i] end
      local divisor = options.divisor_override
        or (options.count_include_pad == false and #places or padded)
      y[o + 1] = sum / divisor
      for _, i in ipairs(places) do dx[base + i] = dx[base + i] + dy(o + 1) / divisor end
    end
  end)
  return y, place, dx
end

-- ---- Comparing ----------------------------------------------------------------------------------

local DOUBLE = { rtol = 1e-12, atol = 1e-12 }
local SINGLE = { rtol = 1e-5, atol = 1e-5 }

local function describe_options(o)
  local parts = {}
  for name, v in pairs(o) do
    parts[#parts + 1] = name .. "=" .. (type(v) == "table" and table.concat(v, ",") or tostring(v))
  end
  table.sort(parts)
  return table.concat(parts, " ")
end

---An op on normal numbers of `shape`, its last #axes dims pooled, against the reference.
local function check(name, kind, shape, axes, options, dtype)
  local draw = samples.generators(samples.random(samples.seed(name, #shape)))
  local x = draw.normal(table.unpack(shape)):to(dtype or "float64")
  local out_shape, planes = {}, 1
  for i, n in ipairs(shape) do
    local a = axes[i - (#shape - #axes)]
    out_shape[i] = a and a.out or n
    if not a then planes = planes * n end
  end
  local dy = draw.normal(table.unpack(out_shape)):to(dtype or "float64")
  local flat = values.read(dy).data
  local y, place, dx = reference(kind, values.read(x).data, function(o) return flat[o] end, planes,
    axes, options)
  local tape <close> = lt.tape()
  tape:watch(x)
  local got, got_place = lt[name](x, options)
  local gradient = tape:gradient(got, x, { output_gradients = dy })
  local tol = dtype == "float32" and SINGLE or DOUBLE
  local function compare(what, t, expected_shape, data, as)
    local difference =
      values.difference(what, t, { shape = expected_shape, dtype = as, data = data }, nil, tol)
    assert(not difference,
      ("%s of %s, %s: %s"):format(name, table.concat(shape, "x"), describe_options(options),
        tostring(difference)))
  end
  local as = dtype or "float64"
  compare("result", got, out_shape, y, as)
  compare("gradient", gradient, shape, dx, as)
  if options.return_indices then compare("places", got_place, out_shape, place, "int64") end
  compare("result without a tape", (lt.no_grad(function() return lt[name](x, options) end)),
    out_shape, y, as)
end

---Numbers 1, ..., as many as the list `from` is long, from it; an odometer over choices.
local function combinations(choices)
  return coroutine.wrap(function()
    local function go(i, picked)
      if i > #choices then return coroutine.yield(table.unpack(picked)) end
      for _, v in ipairs(choices[i]) do
        picked[i] = v
        go(i + 1, picked)
      end
    end
    go(1, {})
  end)
end

describe("pooling in one dimension", function()
  it("of maxima is what plain loops say", function()
    local count = 0
    for n, k, s, p, d, ceil_mode in combinations { { 1, 2, 5, 8 }, { 1, 2, 3, 4 }, { 1, 2, 3, 5 },
      { 0, 1, 2 }, { 1, 2 }, { false, true } } do
      local a = axis(n, k, s, p, d, ceil_mode)
      if 2 * p <= d * (k - 1) + 1 and a.out >= 1 then
        count = count + 1
        check("max_pool1d", "max", { 2, n }, { a }, { kernel_size = k, stride = s, padding = p,
          dilation = d, ceil_mode = ceil_mode, return_indices = count % 2 == 0 },
          count % 3 == 0 and "float32" or "float64")
      end
    end
    assert.is_true(count > 150)
  end)

  it("of means is what plain loops say", function()
    local count = 0
    for n, k, s, p, ceil_mode, include in combinations { { 1, 2, 5, 8 }, { 1, 2, 3, 4 },
      { 1, 2, 3, 5 }, { 0, 1, 2 }, { false, true }, { false, true } } do
      local a = axis(n, k, s, p, 1, ceil_mode)
      if 2 * p <= k and a.out >= 1 then
        count = count + 1
        check("avg_pool1d", "avg", { 2, n }, { a }, { kernel_size = k, stride = s, padding = p,
          ceil_mode = ceil_mode, count_include_pad = include },
          count % 3 == 0 and "float32" or "float64")
      end
    end
    assert.is_true(count > 150)
  end)
end)

-- { sizes, kernel_size, stride, padding, dilation }: pairs, odd rests, windows with gaps and
-- overlaps, some wider than a pass, than a byte counts, than a tile.
local CASES = {
  { { 4, 6 }, { 2, 2 }, { 2, 2 }, { 0, 0 }, { 1, 1 } },
  { { 5, 7 }, { 2, 2 }, { 2, 2 }, { 0, 0 }, { 1, 1 } },
  { { 7, 6 }, { 3, 2 }, { 3, 2 }, { 0, 0 }, { 1, 1 } },
  { { 7, 6 }, { 3, 2 }, { 1, 2 }, { 1, 0 }, { 1, 1 } },
  { { 20, 4 }, { 18, 2 }, { 2, 2 }, { 0, 0 }, { 1, 1 } },
  { { 6, 9 }, { 3, 3 }, { 2, 2 }, { 1, 1 }, { 1, 1 } },
  { { 6, 9 }, { 3, 3 }, { 1, 1 }, { 1, 1 }, { 1, 1 } },
  { { 5, 8 }, { 2, 4 }, { 3, 3 }, { 1, 2 }, { 1, 1 } },
  { { 5, 8 }, { 2, 3 }, { 1, 2 }, { 1, 1 }, { 2, 2 } },
  { { 3, 5 }, { 3, 5 }, { 3, 5 }, { 0, 0 }, { 1, 1 } },
  { { 6, 70 }, { 2, 20 }, { 1, 7 }, { 1, 9 }, { 1, 1 } },
  { { 18, 40 }, { 16, 17 }, { 1, 11 }, { 2, 3 }, { 1, 1 } },
  { { 2, 700 }, { 2, 2 }, { 2, 2 }, { 0, 0 }, { 1, 1 } },
  { { 3, 700 }, { 2, 3 }, { 1, 1 }, { 1, 1 }, { 1, 1 } },
  { { 2, 1500 }, { 2, 5 }, { 1, 4 }, { 1, 2 }, { 1, 1 } },
  { { 2, 1500 }, { 2, 40 }, { 1, 3 }, { 0, 0 }, { 1, 1 } },
}

describe("pooling in two dimensions", function()
  for number, case in ipairs(CASES) do
    local sizes, k, s, p, d = table.unpack(case)
    local function axes(dilation, ceil_mode)
      return { axis(sizes[1], k[1], s[1], p[1], dilation[1], ceil_mode),
        axis(sizes[2], k[2], s[2], p[2], dilation[2], ceil_mode) }
    end

    it(("is what plain loops say, case %d"):format(number), function()
      for ceil_mode, flag in combinations { { false, true }, { false, true } } do
        local dtype = (number % 2 == 0) == (ceil_mode == flag) and "float32" or "float64"
        check("max_pool2d", "max", { 2, 1, sizes[1], sizes[2] }, axes(d, ceil_mode),
          { kernel_size = k, stride = s, padding = p, dilation = d, ceil_mode = ceil_mode,
            return_indices = flag }, dtype)
        if d[1] == 1 then
          check("avg_pool2d", "avg", { 2, sizes[1], sizes[2] }, axes(d, ceil_mode),
            { kernel_size = k, stride = s, padding = p, ceil_mode = ceil_mode,
              count_include_pad = flag }, dtype)
          check("avg_pool2d", "avg", { 1, sizes[1], sizes[2] }, axes(d, ceil_mode),
            { kernel_size = k, stride = s, padding = p, ceil_mode = ceil_mode,
              divisor_override = flag and -3 or 7 }, dtype)
        end
      end
    end)
  end

  it("takes one number for both dimensions, and the kernel's size for a stride", function()
    local x = lt.randn(2, 6, 6)
    for _, name in ipairs { "max_pool2d", "avg_pool2d" } do
      local y = lt[name](x, { kernel_size = { 2, 2 }, stride = { 2, 2 }, padding = { 1, 1 } })
      assert.same(y:totable(), lt[name](x, { kernel_size = 2, padding = 1 }):totable())
      assert.same(y:totable(), x[name](x, 2, nil, 1):totable())
    end
  end)
end)

describe("pooling in three dimensions", function()
  it("is what plain loops say", function()
    for k, s, p, ceil_mode in combinations { { { 2, 2, 2 }, { 1, 3, 2 }, { 2, 1, 3 } },
      { { 2, 2, 2 }, { 1, 2, 1 } }, { { 0, 0, 0 }, { 0, 0, 1 } }, { false, true } } do
      local sizes, axes = { 4, 5, 6 }, {}
      for i = 1, 3 do axes[i] = axis(sizes[i], k[i], s[i], p[i], 1, ceil_mode) end
      local options = { kernel_size = k, stride = s, padding = p, ceil_mode = ceil_mode }
      check("avg_pool3d", "avg", { 2, 4, 5, 6 }, axes, options)
      options.return_indices = true
      check("max_pool3d", "max", { 1, 2, 4, 5, 6 }, axes, options)
    end
  end)
end)

describe("adaptive pooling", function()
  it("in one dimension is what plain loops say", function()
    for n, out, flag in combinations { { 1, 4, 7, 40 }, { 1, 2, 3, 7, 11 }, { false, true } } do
      local dtype = flag and "float32" or "float64"
      check("adaptive_avg_pool1d", "avg", { 2, 3, n }, { adaptive(n, out) },
        { output_size = out }, dtype)
      check("adaptive_max_pool1d", "max", { 2, n }, { adaptive(n, out) },
        { output_size = out, return_indices = flag }, dtype)
    end
  end)

  it("in two and three dimensions is what plain loops say", function()
    for a, b in combinations { { 1, 2, 3, 6, 9 }, { 1, 2, 5, 10, 12 } } do
      local axes = { adaptive(6, a), adaptive(10, b) }
      check("adaptive_avg_pool2d", "avg", { 2, 6, 10 }, axes, { output_size = { a, b } })
      check("adaptive_max_pool2d", "max", { 1, 2, 6, 10 }, axes,
        { output_size = { a, b }, return_indices = true })
      table.insert(axes, 1, adaptive(5, 3))
      check("adaptive_avg_pool3d", "avg", { 1, 2, 5, 6, 10 }, axes, { output_size = { 3, a, b } })
      check("adaptive_max_pool3d", "max", { 2, 5, 6, 10 }, axes, { output_size = { 3, a, b } })
    end
  end)

  it("of long rows is what plain loops say", function()
    for n, out in combinations { { 1100, 3000 }, { 1, 2, 7, 900, 3001 } } do
      check("adaptive_avg_pool1d", "avg", { 1, n }, { adaptive(n, out) }, { output_size = out })
      check("adaptive_max_pool1d", "max", { 1, n }, { adaptive(n, out) },
        { output_size = out, return_indices = true }, "float32")
      check("adaptive_avg_pool2d", "avg", { 1, 2, n }, { adaptive(2, 1), adaptive(n, out) },
        { output_size = { 1, out } })
    end
  end)

  it("keeps a size of -1", function()
    assert.same({ 2, 6, 5 }, lt.adaptive_avg_pool2d(lt.ones(2, 6, 10), { -1, 5 }).shape)
  end)
end)

describe("maxima", function()
  local inf, nan = math.huge, 0 / 0

  ---y and places of windows of three, without gaps.
  local function of(...)
    local y, place = lt.max_pool1d(lt.tensor { { ... } }, 3, { return_indices = true })
    return y:totable()[1], place:totable()[1]
  end

  it("are the first of equal ones", function()
    local y, place = of(1, 2, 2, 5, 5, 5)
    assert.same({ 2, 5 }, y)
    assert.same({ 2, 4 }, place)
  end)

  it("let NaN win, the last of several", function()
    local y, place = of(inf, nan, 3, nan, nan, 1)
    assert.is_true(y[1] ~= y[1] and y[2] ~= y[2])
    assert.same({ 2, 5 }, place)
  end)

  it("of nothing but -inf have a place", function()
    local y, place = of(-inf, -inf, -inf, -inf, 0, -inf)
    assert.same({ -inf, 0 }, y)
    assert.same({ 1, 5 }, place)
  end)

  it("treat long windows and pairs alike", function()
    local data = {}
    for i = 1, 200 do data[i] = -i end
    data[150], data[70] = nan, nan
    local y, place = lt.max_pool1d(lt.tensor { data }, 200, { return_indices = true })
    assert.is_true(y:item() ~= y:item())
    assert.equal(150, place:item())
    y, place = lt.max_pool1d(lt.tensor { data }, 2, { return_indices = true })
    assert.equal(-1, y[1][1]:item())
    assert.equal(70, place[1][35]:item())
    for i = 1, 200 do data[i] = -inf end
    assert.equal(1, select(2, lt.adaptive_max_pool1d(lt.tensor { data },
      { output_size = 1, return_indices = true })):item())
  end)

  it("never come from padding", function()
    local y = lt.max_pool2d(lt.full({ 1, 3, 3 }, -5), { kernel_size = 3, stride = 1, padding = 1 })
    assert.equal(-5, y:min():item())
  end)

  it("of a window that sees only padding are -inf, without a gradient", function()
    local x = lt.tensor({ { 7, 9 } }, { dtype = "float64" })
    local options = { kernel_size = 2, stride = 1, dilation = 3, padding = 2 }
    for _, return_indices in ipairs { false, true } do
      options.return_indices = return_indices
      local tape <close> = lt.tape()
      tape:watch(x)
      local y, place = lt.max_pool1d(x, options)
      assert.same({ { 9, -inf, 7 } }, y:totable())
      if return_indices then assert.same({ { 2, 0, 1 } }, place:totable()) end
      assert.same({ { 1, 1 } }, tape:gradient(y, x):totable())
    end
  end)

  it("do not notice what is watched: places are made only then", function()
    local x = lt.randn(3, 9, 8)
    local y = lt.max_pool2d(x, 2)
    local tape <close> = lt.tape()
    tape:watch(x)
    assert.same(y:totable(), lt.max_pool2d(x, 2):totable())
  end)
end)

describe("pooling", function()
  it("gives the same bits with one thread and with two", function()
    local x = lt.randn(8, 16, 61, 67)
    local function all()
      local results = {}
      local function add(f)
        local tape <close> = lt.tape()
        tape:watch(x)
        local y = f(x)
        results[#results + 1] = y:sum():item()
        results[#results + 1] = (tape:gradient(y * y, x) * x):sum():item()
      end
      add(function(t) return t:max_pool2d(2) end)
      add(function(t) return t:max_pool2d { kernel_size = 3, stride = 2, padding = 1 } end)
      add(function(t) return t:avg_pool2d(2) end)
      add(function(t) return t:avg_pool2d { kernel_size = 3, stride = 1, padding = 1 } end)
      add(function(t) return t:adaptive_avg_pool2d { 7, 9 } end)
      add(function(t) return t:adaptive_max_pool2d(1) end)
      return results
    end
    local threads = lt.num_threads()
    lt.set_num_threads(1)
    local one = all()
    lt.set_num_threads(2)
    local two = all()
    lt.set_num_threads(threads)
    assert.same(one, two)
  end)

  it("adds up large windows without losing digits", function()
    local x = lt.full({ 1, 1000, 1000 }, 0.1)
    assert.equal(0.1, tonumber(("%.7g"):format(x:adaptive_avg_pool2d(1):item())))
    assert.equal(0.1, tonumber(("%.7g"):format(x:avg_pool2d(1000):item())))
  end)

  it("takes empty batches", function()
    for _, name in ipairs { "max_pool2d", "avg_pool2d" } do
      local x = lt.zeros(0, 3, 4, 4)
      local tape <close> = lt.tape()
      tape:watch(x)
      local y = lt[name](x, 2)
      assert.same({ 0, 3, 2, 2 }, y.shape)
      assert.same({ 0, 3, 4, 4 }, tape:gradient(y, x).shape)
    end
    assert.same({ 0, 3, 1, 1 }, lt.adaptive_max_pool2d(lt.zeros(0, 3, 4, 4), 1).shape)
  end)

  it("has second derivatives through squares", function()
    local x = lt.tensor({ { 1, 3, 2, 5 } }, { dtype = "float64" })
    local outer <close> = lt.tape()
    outer:watch(x)
    local inner <close> = lt.tape()
    inner:watch(x)
    local g = inner:gradient(x:max_pool1d(2) ^ 2, x)
    assert.same({ { 0, 6, 0, 10 } }, g:totable())
    assert.same({ { 0, 2, 0, 2 } }, outer:gradient(g, x):totable())
  end)

  local function refused(words, f, ...)
    local fine, message = pcall(f, ...)
    assert(not fine, "was accepted")
    for _, word in ipairs(words) do
      assert(message:find(word, 1, true), ("no '%s' in: %s"):format(word, message))
    end
  end

  it("refuses what cannot be", function()
    local x = lt.ones(1, 2, 4, 4)
    for _, name in ipairs { "max_pool2d", "avg_pool2d" } do
      local op = lt[name]
      refused({ name, "padding", "half" }, op, x, { kernel_size = 2, padding = 2 })
      refused({ name, "larger than x" }, op, x, { kernel_size = 5 })
      refused({ name, "larger than x" }, op, x, { kernel_size = { 1, 5 } })
      refused({ name, "kernel_size", "between 1" }, op, x, { kernel_size = 0 })
      refused({ name, "kernel_size", "between 1" }, op, x, { kernel_size = { 2, -1 } })
      refused({ name, "kernel_size", "got 1099511627776" }, op, x, { kernel_size = 1 << 40 })
      refused({ name, "stride" }, op, x, { kernel_size = 2, stride = 0 })
      refused({ name, "padding" }, op, x, { kernel_size = 2, padding = -1 })
      refused({ name, "1 integer or 2", "got 3" }, op, x, { kernel_size = { 2, 2, 2 } })
      refused({ name, "(C, H, W)", "4x4" }, op, lt.ones(4, 4), 2)
      refused({ name, "dim 3", "size 0" }, op, lt.ones(1, 2, 0, 4), 2)
      refused({ name, "float" }, op, x:to "int64", 2)
    end
    refused({ "max_pool2d", "dilation" }, lt.max_pool2d, x, { kernel_size = 2, dilation = 0 })
    refused({ "avg_pool2d", "divisor_override" }, lt.avg_pool2d, x,
      { kernel_size = 2, divisor_override = 0 })
    refused({ "adaptive_avg_pool2d", "output_size" }, lt.adaptive_avg_pool2d, x, 0)
    refused({ "adaptive_max_pool2d", "output_size" }, lt.adaptive_max_pool2d, x, { 1, -2 })
    refused({ "lp_pool2d", "norm_type" }, lt.lp_pool2d, x, 0, 2)
  end)

  it("by powers is the root of sums of powers", function()
    local x = lt.tensor({ { 3, 4, 6, 8 } }, { dtype = "float64" })
    assert.same({ { 5, 10 } }, x:lp_pool1d(2, 2):totable())
  end)
end)
