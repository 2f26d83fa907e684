-- Convolutions against plain loops: sizes, strides, paddings, dilations, groups, batches; storage,
-- threads, levels of SIMD, identities between the passes, and what is refused.
local lt = require "luatape"
local samples = require "spec.samples"

local generators = samples.generators(samples.random(4711))

-- ---- Plain loops --------------------------------------------------------------------------------

---All index lists with 1 <= i[d] <= sizes[d], in order.
local function each(sizes)
  local i, n = {}, #sizes
  for d = 1, n do
    if sizes[d] == 0 then return function() end end
    i[d] = 1
  end
  i[n] = 0
  return function()
    for d = n, 1, -1 do
      if i[d] < sizes[d] then
        i[d] = i[d] + 1
        return i
      end
      i[d] = 1
    end
  end
end

local function get(t, i)
  local v = t
  for d = 1, #i do v = v[i[d]] end
  return v
end

---Calls f(places of y, of x, of w) for each product of a convolution: lists of n, channel, spatial.
local function each_product(g, f)
  local outer = { g.n, g.groups, g.out, g.into }
  local dims = #g.x
  for k in each(g.w) do
    for o in each(g.y) do
      local inside, place = true, {}
      for d = 1, dims do
        place[d] = (o[d] - 1) * g.stride[d] - g.padding[d] + (k[d] - 1) * g.dilation[d] + 1
        inside = inside and place[d] >= 1 and place[d] <= g.x[d]
      end
      if inside then
        for c in each(outer) do
          f({ c[1], (c[2] - 1) * g.out + c[3], table.unpack(o) },
            { c[1], (c[2] - 1) * g.into + c[4], table.unpack(place) },
            { (c[2] - 1) * g.out + c[3], c[4], table.unpack(k) })
        end
      end
    end
  end
end

local function nested(sizes, level)
  level = level or 1
  if level > #sizes then return 0 end
  local t = {}
  for i = 1, sizes[level] do t[i] = nested(sizes, level + 1) end
  return t
end

local function add(t, i, v)
  for d = 1, #i - 1 do t = t[i[d]] end
  t[i[#i]] = t[i[#i]] + v
end

---y of x and w, dx and dw of dy, by loops, as nested tables.
local function reference(g, x, w, dy)
  local y = nested { g.n, g.groups * g.out, table.unpack(g.y) }
  local dx = nested { g.n, g.groups * g.into, table.unpack(g.x) }
  local dw = nested { g.groups * g.out, g.into, table.unpack(g.w) }
  each_product(g, function(at_y, at_x, at_w)
    add(y, at_y, get(x, at_x) * get(w, at_w))
    add(dx, at_x, get(dy, at_y) * get(w, at_w))
    add(dw, at_w, get(dy, at_y) * get(x, at_x))
  end)
  return y, dx, dw
end

-- ---- Comparing ----------------------------------------------------------------------------------

local function flat(t, list)
  list = list or {}
  if type(t) ~= "table" then
    list[#list + 1] = t
  else
    for _, v in ipairs(t) do flat(v, list) end
  end
  return list
end

local function assert_near(what, expected, got, tolerance)
  local a, b = flat(expected), flat(got:totable())
  assert.equal(#a, #b, what)
  for i = 1, #a do
    if not (math.abs(a[i] - b[i]) <= tolerance * math.max(1, math.abs(a[i]))) then
      error(("%s: element %d is %.15g instead of %.15g"):format(what, i, b[i], a[i]), 0)
    end
  end
end

local function numbers(sizes, dtype)
  return generators.normal(table.unpack(sizes)):to(dtype or "float64")
end

---y and its gradients for x, w and bias, with dy as the result's gradient.
local function derive(name, x, w, bias, dy, options)
  local tape <close> = lt.tape()
  local sources = { x, w, bias }
  for _, t in ipairs(sources) do tape:watch(t) end
  local y = lt[name](x, w, bias, options)
  return y, tape:gradient(y, sources, { output_gradients = dy })
end

---Checks a geometry: convolution and transposed convolution, both with all gradients.
local function check(g, dtype)
  dtype = dtype or "float64"
  local dims, tolerance = #g.x, dtype == "float32" and 2e-4 or 1e-12
  g.y = {}
  for d = 1, dims do
    local span = (g.w[d] - 1) * g.dilation[d] + 1
    g.y[d] = (g.x[d] + 2 * g.padding[d] - span) // g.stride[d] + 1
    if g.x[d] + 2 * g.padding[d] < span then return false end
  end
  local x = numbers({ g.n, g.groups * g.into, table.unpack(g.x) }, dtype)
  local w = numbers({ g.groups * g.out, g.into, table.unpack(g.w) }, dtype)
  local dy = numbers({ g.n, g.groups * g.out, table.unpack(g.y) }, dtype)
  local bias = numbers({ g.groups * g.out }, dtype)
  local options = { stride = g.stride, padding = g.padding, dilation = g.dilation, groups = g.groups }
  local b, slopes = bias:totable(), dy:totable()
  local y, dx, dw = reference(g, x:totable(), w:totable(), slopes)
  local biased = nested { g.n, g.groups * g.out, table.unpack(g.y) }
  local sums = nested { g.groups * g.out }
  for i in each { g.n, g.groups * g.out, table.unpack(g.y) } do
    add(biased, i, get(y, i) + b[i[2]])
    add(sums, { i[2] }, get(slopes, i))
  end

  local got, grads = derive("conv" .. dims .. "d", x, w, bias, dy, options)
  assert_near("y", biased, got, tolerance)
  assert_near("dx", dx, grads[1], tolerance)
  assert_near("dw", dw, grads[2], tolerance)
  assert_near("dbias", sums, grads[3], tolerance)

  -- The transposed convolution of dy is dx: its own gradients for x are y and dw.
  options.output_padding = {}
  for d = 1, dims do
    options.output_padding[d] = (g.x[d] + 2 * g.padding[d] - (g.w[d] - 1) * g.dilation[d] - 1)
      % g.stride[d]
  end
  local zero = lt.zeros({ g.groups * g.into }, { dtype = dtype })
  got, grads = derive("conv_transpose" .. dims .. "d", dy, w, zero, x, options)
  assert_near("transposed y", dx, got, tolerance)
  assert_near("transposed dx", y, grads[1], tolerance)
  assert_near("transposed dw", dw, grads[2], tolerance)
  return true
end

local function show(g)
  local text = {}
  for _, name in ipairs { "n", "groups", "into", "out", "x", "w", "stride", "padding", "dilation" } do
    local v = g[name]
    text[#text + 1] = name .. "=" .. (type(v) == "table" and table.concat(v, "x") or v)
  end
  return table.concat(text, " ")
end

local function checked(g, dtype)
  local ok, result = pcall(check, g, dtype)
  if not ok then error(show(g) .. ": " .. tostring(result), 0) end
  return result
end

local random = samples.random(17)
local function pick(list) return list[random(1, #list)] end

---A geometry of `dims` dimensions with small random sizes.
local function drawn(dims)
  local g = {
    n = pick { 0, 1, 1, 2, 3 }, groups = pick { 1, 1, 2, 3 }, into = pick { 1, 2, 3 },
    out = pick { 1, 2, 5 }, x = {}, w = {}, stride = {}, padding = {}, dilation = {},
  }
  for d = 1, dims do
    g.x[d], g.w[d] = random(1, dims == 3 and 4 or 7), pick { 1, 1, 2, 3, 4 }
    g.stride[d], g.padding[d], g.dilation[d] = pick { 1, 1, 2, 3, 5 }, random(0, 2), pick { 1, 1, 2, 3 }
  end
  return g
end

local function bits(t)
  local list = t:reshape(-1):totable()
  for i, v in ipairs(list) do list[i] = ("%a"):format(v) end
  return table.concat(list, " ")
end

-- ---- The specs ----------------------------------------------------------------------------------

describe("convolution", function()
  for dims = 1, 3 do
    it(("agrees with plain loops in %d dimensions"):format(dims), function()
      local done = 0
      while done < (dims == 3 and 20 or 40) do
        local dtype = done % 3 == 0 and "float32" or "float64"
        if checked(drawn(dims), dtype) then done = done + 1 end
      end
    end)
  end

  it("agrees where tiles, blocks and vectors end", function()
    for _, g in ipairs {
      { n = 1, groups = 1, into = 1, out = 17, x = { 3, 700 }, w = { 2, 3 } }, -- a row is cut
      { n = 1, groups = 1, into = 2, out = 3, x = { 45, 31 }, w = { 3, 3 } }, -- rows are cut
      { n = 9, groups = 1, into = 3, out = 20, x = { 3, 3 }, w = { 3, 2 } }, -- images together
      { n = 5, groups = 2, into = 3, out = 33, x = { 5, 4 }, w = { 3, 3 } },
      { n = 1, groups = 1, into = 130, out = 2, x = { 9, 8 }, w = { 3, 3 } },
      { n = 1, groups = 4, into = 1, out = 1, x = { 19, 18 }, w = { 5, 3 } }, -- depthwise
      { n = 2, groups = 3, into = 1, out = 2, x = { 9, 17 }, w = { 3, 3 } },
      { n = 2, groups = 1, into = 3, out = 65, x = { 6, 6 }, w = { 1, 1 } },
      { n = 1, groups = 1, into = 2, out = 8, x = { 12, 6 }, w = { 12, 2 } },
    } do
      g.stride, g.padding, g.dilation = { 1, 1 }, { 1, 1 }, { 1, 1 }
      checked(g)
      g.stride, g.padding, g.dilation = { 2, 1 }, { 0, 2 }, { 1, 1 }
      checked(g, "float32")
      g.stride, g.padding, g.dilation = { 3, 2 }, { 3, 1 }, { 2, 1 }
      checked(g)
    end
  end)

  it("sums long kernels by parts", function()
    -- more lines than are in work at once: 384 channels of tiles of 640 places
    local x, w = lt.ones({ 1, 400, 26, 25 }), lt.ones({ 2, 400, 3, 3 })
    local y = lt.conv2d(x, w, { padding = 1 })
    assert.equal(400 * 9, y[1][2][13][12]:item())
    assert.equal(400 * 4, y[1][1][1][1]:item())
    assert.equal(400 * 6, y[1][1][26][12]:item())
  end)

  it("takes one number for all dimensions, one sample without a batch, and words", function()
    local x, w = numbers { 2, 3, 6, 5 }, numbers { 4, 3, 3, 2 }
    local y = lt.conv2d(x, w, { stride = { 2, 2 }, padding = { 1, 1 } })
    assert.same(bits(y), bits(lt.conv2d(x, w, { stride = 2, padding = 1 })))
    assert.same(bits(y), bits(lt.conv2d(x, w, nil, 2, 1)))
    assert.same({ 4, 3, 3 }, lt.conv2d(x[1], w, { stride = 2, padding = 1 }).shape)
    assert_near("one", y[2]:totable(), lt.conv2d(x[2], w, { stride = 2, padding = 1 }), 1e-12)
    assert.same(bits(lt.conv2d(x, w)), bits(lt.conv2d(x, w, { padding = "valid" })))
    assert.same({ 2, 4, 6, 5 }, lt.conv2d(x, w, { padding = "same" }).shape)
    assert.same({ 2, 4, 6, 5 }, lt.conv2d(x, w, { padding = "same", dilation = { 3, 4 } }).shape)
    local t = lt.conv_transpose2d(y, w, { stride = 2, padding = 1 })
    assert.same({ 2, 3, 5, 4 }, t.shape)
    local one = lt.conv_transpose2d(y[1], w, { stride = 2, padding = 1 })
    assert_near("one transposed", t[1]:totable(), one, 1e-12)
  end)

  it("puts what is odd of same padding at the end", function()
    local x, w = lt.tensor { { 1, 2, 3 } }, lt.tensor { { { 10, 1 } } }
    assert.same({ { 12, 23, 30 } }, lt.conv1d(x, w, { padding = "same" }):totable())
  end)

  it("adds the bias of empty sums, and spreads no gradient of empty batches", function()
    local w = numbers { 2, 3, 2, 2 }
    local y, grads = derive("conv2d", numbers { 0, 3, 4, 4 }, w, numbers { 2 },
      numbers { 0, 2, 3, 3 })
    assert.same({ 0, 2, 3, 3 }, y.shape)
    assert.same({ 0, 3, 4, 4 }, grads[1].shape)
    assert.equal(0, grads[2]:abs():sum():item())
    assert.equal(0, grads[3]:abs():sum():item())
    local none = lt.conv1d(lt.zeros { 1, 0, 3 }, lt.zeros { 2, 0, 2 }, lt.tensor { 5, 7 })
    assert.same({ { { 5, 5 }, { 7, 7 } } }, none:totable())
    -- a stride beyond the kernel leaves places that nothing reaches
    local t = lt.conv_transpose1d(lt.tensor { { 1, 2 } }, lt.tensor { { { 3 } } }, { stride = 3 })
    assert.same({ { 3, 0, 0, 6 } }, t:totable())
  end)

  it("gives the same bits however tensors are stored", function()
    local x, w, dy = numbers { 3, 4, 9, 8 }, numbers { 6, 4, 3, 3 }, numbers { 3, 6, 4, 4 }
    local options = { stride = 2, padding = { 0, 1 } }
    local y, grads = derive("conv2d", x, w, numbers { 6 }, dy, options)
    local function turned(t) return t:permute(3, 1, 4, 2):contiguous():permute(2, 4, 1, 3) end
    local function every_second(t)
      local sizes = t.shape
      sizes[#sizes] = 2 * sizes[#sizes]
      local wide = numbers(sizes)
      wide[{ {}, {}, {}, { 1, sizes[#sizes], 2 } }] = t
      return wide[{ {}, {}, {}, { 1, sizes[#sizes], 2 } }]
    end
    for _, f in ipairs { turned, every_second } do
      local other, other_grads = derive("conv2d", f(x), f(w), numbers { 6 }, f(dy), options)
      assert.equal(y.ndim, other.ndim)
      assert.same(bits(grads[1]), bits(other_grads[1]))
      assert.same(bits(grads[2]), bits(other_grads[2]))
      assert.same(bits(lt.conv2d(x, w, options)), bits(lt.conv2d(f(x), f(w), options)))
    end
    local row = numbers { 1, 4, 9, 8 }
    local all = row:expand(3, 4, 9, 8)
    assert.same(bits(lt.conv2d(all:contiguous(), w)), bits(lt.conv2d(all, w)))
  end)

  it("gives the same bits for any number of threads", function()
    local before = lt.num_threads()
    for _, case in ipairs {
      { { 8, 16, 30, 30 }, { 32, 16, 3, 3 }, { padding = 1 } },
      { { 40, 32, 6, 6 }, { 64, 32, 3, 3 }, { padding = 1 } },
      { { 4, 48, 31, 29 }, { 48, 1, 3, 3 }, { padding = 1, groups = 48 } },
      { { 3, 8, 70, 41 }, { 24, 4, 5, 3 }, { stride = 2, groups = 2 } },
      { { 2, 256, 12, 12 }, { 256, 256, 3, 3 }, { padding = 1, stride = { 1, 2 } } },
    } do
      local x, w = lt.randn(table.unpack(case[1])), lt.randn(table.unpack(case[2]))
      local first
      for threads = 1, 3 do
        lt.set_num_threads(threads)
        local y = lt.conv2d(x, w, case[3])
        local dy = lt.ones_like(y) * y
        local _, grads = derive("conv2d", x, w, lt.zeros { w.shape[1] }, dy, case[3])
        local sums = { bits(y:reshape(-1)[{ { 1, 5000 } }]), bits(y:sum()),
          bits(grads[1]:reshape(-1)[{ { 1, 5000 } }]), bits(grads[1]:square():sum()),
          bits(grads[2]:reshape(-1)[{ { 1, 200 } }]), bits(grads[2]:square():sum()) }
        first = first or sums
        assert.same(first, sums)
      end
    end
    lt.set_num_threads(before)
  end)

  it("keeps sums accurate in float32", function()
    local x, dy = lt.full({ 64, 1, 40, 40 }, 0.1), lt.full({ 64, 1, 40, 40 }, 0.1)
    local w = lt.zeros { 1, 1, 1, 1 }
    local _, grads = derive("conv2d", x, w, lt.zeros { 1 }, dy)
    local exact = 64 * 1600 * (lt.tensor(0.1):item() ^ 2)
    assert.is_true(math.abs(grads[2]:item() - exact) < 1e-5 * exact)
  end)

  it("passes on what is not finite, where it is read", function()
    local x = lt.ones { 1, 1, 5, 5 }
    x[1][1][1][1] = 0 / 0
    x[1][1][5][5] = 1 / 0
    local y = lt.conv2d(x, lt.ones { 1, 1, 2, 2 })
    assert.is_true(y[1][1][1][1]:item() ~= y[1][1][1][1]:item())
    assert.equal(4, y[1][1][1][2]:item())
    assert.equal(4, y[1][1][3][4]:item())
    assert.equal(1 / 0, y[1][1][4][4]:item())
  end)

  it("has derivatives of the third order", function()
    local x, w = numbers { 1, 2, 5 }, numbers { 3, 2, 2 }
    local function cube(a, b) return (lt.conv1d(a, b, { stride = 2, padding = 1 }) ^ 3):sum() end
    local function slope(a, b)
      local tape <close> = lt.tape()
      tape:watch(a)
      return (tape:gradient(cube(a, b), a) ^ 2):sum()
    end
    local function slope_of_slope(a, b)
      local tape <close> = lt.tape()
      tape:watch(b)
      return (tape:gradient(slope(a, b), b) ^ 2):sum()
    end
    local tape <close> = lt.tape()
    tape:watch(x)
    local grad = tape:gradient(slope_of_slope(x, w), x)
    local direction, step = numbers { 1, 2, 5 }, 2 ^ -16
    local expected = (slope_of_slope(x + direction * step, w)
      - slope_of_slope(x - direction * step, w)):item() / (2 * step)
    local got = (grad * direction):sum():item()
    assert.is_true(math.abs(got - expected) < 1e-5 * math.max(1, math.abs(expected)))
  end)
end)

-- ---- Levels of SIMD -------------------------------------------------------------------------------

describe("convolution at lower levels of SIMD", function()
  local script = [[
    local lt = require "luatape"
    lt.manual_seed(5)
    for _, c in ipairs {
      { { 2, 5, 11, 19 }, { 18, 5, 3, 3 }, { padding = 1 } },
      { { 7, 6, 4, 5 }, { 4, 3, 3, 2 }, { stride = { 2, 1 }, padding = 1, groups = 2 } },
      { { 2, 6, 13, 9 }, { 6, 1, 5, 3 }, { padding = 2, groups = 6 } },
      { { 1, 3, 9, 9 }, { 33, 3, 1, 1 }, { stride = 2 } },
    } do
      for _, dtype in ipairs { "float32", "float64" } do
        local x, w = lt.randn(table.unpack(c[1])):to(dtype), lt.randn(table.unpack(c[2])):to(dtype)
        local tape <close> = lt.tape()
        tape:watch(x)
        tape:watch(w)
        local y = lt.conv2d(x, w, lt.zeros({ w.shape[1] }, { dtype = dtype }), c[3])
        local g = tape:gradient((y * y):sum(), { x, w })
        for _, t in ipairs { y, g[1], g[2] } do
          print(("%.17g"):format((t:to "float64" * lt.linspace(1, 2, t:numel()):to "float64"
            :reshape(table.unpack(t.shape))):sum():item()))
        end
      end
    end]]

  local function run(level)
    local file = os.tmpname()
    local f = assert(io.open(file, "w"))
    f:write(script)
    f:close()
    local program = os.getenv "LUATAPE_PROGRAM"
      or (os.getenv "LUATAPE_BUILD" or "build") .. "/luatape"
    local pipe = assert(io.popen(("LUATAPE_SIMD=%s '%s' %s"):format(level, program, file)))
    local list = {}
    for line in pipe:lines() do list[#list + 1] = assert(tonumber(line), line) end
    assert(pipe:close())
    os.remove(file)
    return list
  end

  it("gives nearly the same", function()
    local best = run "avx512"
    assert.equal(24, #best)
    for _, level in ipairs { "portable", "avx2" } do
      for i, v in ipairs(run(level)) do
        local tolerance = (i - 1) // 3 % 2 == 0 and 1e-4 or 1e-12
        assert(math.abs(v - best[i]) <= tolerance * math.max(1, math.abs(v)),
          ("%s: value %d is %.17g instead of %.17g"):format(level, i, v, best[i]))
      end
    end
  end)
end)

-- ---- What is refused ------------------------------------------------------------------------------

describe("convolution refuses", function()
  local function refuses(words, name, ...)
    local ok, message = pcall(lt[name], ...)
    assert.is_false(ok, name .. " accepted " .. words)
    assert(message:find(name .. ":", 1, true), message)
    for word in words:gmatch "[^|]+" do assert(message:find(word, 1, true), message) end
  end
  local x, w = lt.ones { 2, 4, 6, 5 }, lt.ones { 6, 4, 3, 3 }

  it("shapes that do not fit", function()
    refuses("3x3|channels x height x width", "conv2d", lt.ones { 3, 3 }, w)
    refuses("weight|6x4x3", "conv2d", x, lt.ones { 6, 4, 3 })
    refuses("4 channels|takes 3|2x4x6x5|6x3x3x3", "conv2d", x, lt.ones { 6, 3, 3, 3 })
    refuses("4 channels|takes 6", "conv_transpose2d", x, w)
    refuses("bias|6 elements|5", "conv2d", x, w, lt.ones { 5 })
    refuses("bias|4 elements", "conv_transpose2d", lt.ones { 1, 6, 3, 3 }, w, lt.ones { 6 })
    refuses("kernel spans 3|only 2", "conv2d", lt.ones { 1, 4, 2, 5 }, w)
    refuses("kernel spans 9|only 8", "conv2d", x, w, { dilation = 4, padding = 1 })
    refuses("kernel is empty", "conv2d", x, lt.ones { 6, 4, 0, 3 })
    refuses("no valid size", "conv_transpose2d", lt.ones { 1, 6, 2, 2 }, w, { padding = 2 })
    refuses("dtypes differ|float64", "conv2d", x, w:to "float64")
  end)

  it("options that do not fit", function()
    refuses("groups = 4|6 channels", "conv2d", x, w, { groups = 4 })
    refuses("takes 4 in each group|groups 2", "conv2d", x, w, { groups = 2 })
    refuses("groups|positive|0", "conv2d", x, w, { groups = 0 })
    refuses("groups|positive|-1", "conv_transpose2d", x, w, { groups = -1 })
    refuses("stride|positive|0", "conv2d", x, w, { stride = 0 })
    refuses("stride|positive|-2", "conv2d", x, w, { stride = { 1, -2 } })
    refuses("stride|one number or 2|3", "conv2d", x, w, { stride = { 1, 2, 3 } })
    refuses("dilation|positive", "conv2d", x, w, { dilation = 0 })
    refuses("padding|at least 0|-1", "conv2d", x, w, { padding = -1 })
    refuses("valid|same", "conv2d", x, w, { padding = "full" })
    refuses("same|stride 1|2", "conv2d", x, w, { padding = "same", stride = { 1, 2 } })
    refuses("output_padding|below stride or dilation|2", "conv_transpose2d", lt.ones { 6, 3, 3 }, w,
      { stride = 2, output_padding = 2 })
    refuses("known|groups", "conv2d", x, w, { known = 1 })
  end)

  it("sizes that no machine has", function()
    refuses("2^31", "conv2d", x, w, { dilation = 1 << 40 })
    refuses("2^31", "conv2d", x, w, { stride = math.maxinteger })
    assert.is_false(pcall(lt.conv2d, x, w, { padding = (1 << 31) - 1 }))
    assert.is_false(pcall(lt.conv_transpose2d, lt.ones { 6, 3, 3 }, w, { stride = (1 << 31) - 1 }))
    assert.is_false(pcall(lt.conv_transpose2d, lt.ones { 6, 3, 3 }, w, { dilation = (1 << 31) - 1 }))
    refuses("does not divide", "conv_transpose1d", lt.ones { 4, 1 }, lt.ones { 4, 1, 1 },
      { groups = math.maxinteger })
  end)
end)
