-- Normalisations against plain Lua and composed formulas: rows short and long enough to be summed
-- in blocks, numbers far from zero, running statistics, third derivatives, threads, bad arguments.
local lt = require "luatape"
local samples = require "spec.samples"

local random = samples.random(20250301)
local generators = samples.generators(random)
local normal, positive = generators.normal, generators.positive

local function flat(t) return t:reshape(-1):totable() end

local function assert_close(what, got, expected, tolerance)
  assert.same(expected.shape, got.shape, what)
  local a, b = flat(got), flat(expected)
  for i = 1, #a do
    local scale = math.max(1, math.abs(b[i]))
    assert(math.abs(a[i] - b[i]) <= (tolerance or 1e-11) * scale,
      ("%s: number %d is %.17g, expected %.17g"):format(what, i, a[i], b[i]))
  end
end

---Value and gradients of <noise, f(tensors)>; `third` adds those of the squares of gradients.
local function derive(f, tensors, more)
  local tape <close> = lt.tape()
  for _, t in ipairs(tensors) do tape:watch(t) end
  local y
  local gradients
  if more and more > 0 then
    y, gradients = derive(f, tensors, more - 1)
    local sum = 0
    for i, g in ipairs(gradients) do sum = sum + (g * g * (1 + i / 4)):sum() end
    return y, tape:gradient(sum, tensors)
  end
  y = f(table.unpack(tensors))
  local noise = lt.cos(lt.range(1, y:numel()):to(y.dtype)):reshape(y.shape)
  return y, tape:gradient((y * noise * y):sum() + (y * noise):sum(), tensors)
end

local function same_derivatives(what, f, reference, tensors, more, tolerance)
  for order = 0, more or 0 do
    local y, gradients = derive(f, tensors, order)
    local expected, expected_gradients = derive(reference, tensors, order)
    assert_close(what, y, expected, tolerance)
    for i, g in ipairs(expected_gradients) do
      assert_close(("%s, order %d, input %d"):format(what, order + 1, i), gradients[i], g,
        (tolerance or 1e-11) * 100 ^ order)
    end
  end
end

---Normalised over dims, by ops.
local function normalised(x, dims, eps, centred)
  if centred ~= false then x = x - x:mean { dim = dims, keepdim = true } end
  return x * ((x * x):mean { dim = dims, keepdim = true } + eps) ^ -0.5
end

---mean and 1 / n sum of squares about it, of a list
local function moments(list)
  local mean, square = 0, 0
  for _, v in ipairs(list) do mean = mean + v / #list end
  for _, v in ipairs(list) do square = square + (v - mean) ^ 2 / #list end
  return mean, square
end

---The same bits with 1, 2 and 3 threads.
local function same_bits(what, f)
  local before, first = lt.num_threads(), nil
  for n = 1, 3 do
    lt.set_num_threads(n)
    local list = { f() }
    first = first or list
    for k, t in ipairs(list) do
      assert(t:eq(first[k]):all():item(), ("%s differs with %d threads"):format(what, n))
    end
  end
  lt.set_num_threads(before)
end

describe("layer_norm and rms_norm", function()
  it("are what plain Lua computes", function()
    for _, n in ipairs { 1, 2, 15, 63, 64, 65, 130, 1023, 1025, 4097, 5000 } do
      local x = normal(3, n) * 2 + 3
      local y, z = lt.layer_norm(x, nil, nil, { eps = 0.01 }), lt.rms_norm(x, nil, { eps = 0.01 })
      for r = 1, 3 do
        local row = x[r]:totable()
        local mean, variance = moments(row)
        local root_mean_square = math.sqrt(variance + mean ^ 2 + 0.01)
        local a, b = y[r]:totable(), z[r]:totable()
        for j = 1, n do
          local expected = (row[j] - mean) / math.sqrt(variance + 0.01)
          assert(math.abs(a[j] - expected) < 1e-11, "layer_norm of " .. n)
          assert(math.abs(b[j] - row[j] / root_mean_square) < 1e-11, "rms_norm of " .. n)
        end
      end
    end
  end)

  it("have the derivatives of their formulas", function()
    for _, shape in ipairs { { 1, 1 }, { 7, 5 }, { 70, 3 }, { 2, 3, 33 }, { 3, 130 }, { 100, 66 } } do
      local n = shape[#shape]
      local x, w, b = normal(table.unpack(shape)), positive(n), normal(n)
      local last = { #shape }
      local more = x:numel() < 200 and 2 or 0
      same_derivatives("layer_norm", function(...) return lt.layer_norm(..., { eps = 0.1 }) end,
        function(a) return normalised(a, last, 0.1) end, { x }, more)
      same_derivatives("layer_norm", function(a, c, d) return lt.layer_norm(a, c, d, { eps = 0.1 }) end,
        function(a, c, d) return normalised(a, last, 0.1) * c + d end, { x, w, b }, more)
      same_derivatives("layer_norm", function(a, d) return lt.layer_norm(a, nil, d, { eps = 0.1 }) end,
        function(a, d) return normalised(a, last, 0.1) + d end, { x, b }, more)
      same_derivatives("rms_norm", function(a, c) return lt.rms_norm(a, c, { eps = 0.1 }) end,
        function(a, c) return normalised(a, last, 0.1, false) * c end, { x, w }, more)
    end
  end)

  it("take several dimensions and any layout", function()
    local x = normal(4, 3, 5, 2):permute { 2, 1, 4, 3 }
    local w, b = positive(5, 2):transpose(), normal(2, 5)
    same_derivatives("layer_norm", function(a, c, d)
      return lt.layer_norm(a, c, d, { normalized_shape = { 2, 5 } })
    end, function(a, c, d) return normalised(a, { 3, 4 }, 1e-5) * c + d end, { x, w, b })
    assert_close("by weight", lt.layer_norm(x, w), lt.layer_norm(x, w, nil, { normalized_shape = { 2, 5 } }))
    assert_close("by position", lt.layer_norm(x, 5), lt.layer_norm(x, nil, nil, { normalized_shape = { 5 } }))
    local expanded = normal(3, 1):expand(3, 6)
    assert_close("expanded", lt.layer_norm(expanded), lt.zeros({ 3, 6 }, { dtype = "float64" }))
  end)

  it("stay accurate in float32, far from zero and in many rows", function()
    local x = normal(2000, 100) + 1000
    local single, w = x:to "float32", positive(100)
    x = single:to "float64"
    local y, g = derive(lt.layer_norm, { single, w:to "float32", w:to "float32" })
    local expected, exact = derive(lt.layer_norm, { x, w:to("float32"):to "float64", w:to("float32"):to "float64" })
    assert_close("float32", y:to "float64", expected, 2e-4) -- 1000 is known to 6e-5
    for i = 2, 3 do
      local scale = exact[i]:abs():max():item()
      assert_close("float32 gradient", g[i]:to "float64" / scale, exact[i] / scale, 1e-4)
    end
  end)

  it("use the machine epsilon of the dtype where rms_norm has none", function()
    for dtype, eps in pairs { float32 = 2 ^ -23, float64 = 2 ^ -52 } do
      local x = lt.full({ 1, 4 }, eps ^ 0.5, { dtype = dtype })
      assert(math.abs(lt.rms_norm(x):get(1, 1) - 0.5 ^ 0.5) < 1e-6)
    end
  end)

  it("give the same bits for any number of threads", function()
    local x, w, b = lt.randn(3001, 129), lt.randn(129), lt.randn(129)
    for _, f in ipairs { lt.layer_norm, lt.rms_norm } do
      same_bits("rows", function()
        local y, g = derive(f, f == lt.rms_norm and { x, w } or { x, w, b })
        return y, table.unpack(g)
      end)
    end
  end)

  it("say what is wrong", function()
    local x = lt.ones(2, 3)
    for message, f in pairs {
      ["layer_norm: x %(2x3%) must end in the dimensions of normalized_shape %(4%)"] = function()
        lt.layer_norm(x, nil, nil, { normalized_shape = { 4 } })
      end,
      ["layer_norm: weight must be float32 of 3, got float32 of 2"] = function()
        lt.layer_norm(x, lt.ones(2), nil, { normalized_shape = 3 })
      end,
      ["layer_norm: weight must be float32 of 3, got float64 of 3"] = function()
        lt.layer_norm(x, lt.ones({ 3 }, { dtype = "float64" }))
      end,
      ["layer_norm: bias must be float32 of 3, got float32 of 4"] = function()
        lt.layer_norm(x, lt.ones(3), lt.ones(4))
      end,
      ["rms_norm: x %(2x3%) must end in the dimensions of weight %(1x2x3%)"] = function()
        lt.rms_norm(x, lt.ones(1, 2, 3))
      end,
      ["rms_norm: x %(0%-d%) must end"] = function() lt.rms_norm(lt.ones {}) end,
    } do
      assert.error_matches(f, message)
    end
  end)
end)

describe("group_norm and instance_norm", function()
  it("have the derivatives of their formulas", function()
    for _, shape in ipairs { { 2, 6 }, { 1, 4, 1 }, { 3, 6, 5 }, { 2, 4, 3, 3 }, { 2, 6, 40 }, { 1, 2, 70, 70 } } do
      local n, c = shape[1], shape[2]
      local x, w, b = normal(table.unpack(shape)), positive(c), normal(c)
      local more = x:numel() < 100 and 2 or 0
      local channels = { c }
      for d = 3, #shape do channels[d - 1] = 1 end
      for _, count in ipairs { 1, 2, c } do
        local function reference(a, e, f)
          local y = normalised(a:reshape { n, count, -1 }, { 3 }, 0.1):reshape(a.shape)
          if e then y = y * e:reshape(channels) end
          if f then y = y + f:reshape(channels) end
          return y
        end
        local function group_norm(a, e, f)
          return lt.group_norm(a, e, f, { num_groups = count, eps = 0.1 })
        end
        same_derivatives("group_norm", group_norm, reference, { x, w, b }, more)
        same_derivatives("group_norm", group_norm, reference, { x }, more)
        if count == c and #shape > 2 and x:numel() > n * c then
          same_derivatives("instance_norm",
            function(a, e, f) return lt.instance_norm(a, e, f, { eps = 0.1 }) end, reference,
            { x, w, b }, more)
        end
      end
    end
  end)

  it("give the same bits for any number of threads", function()
    local x, w = lt.randn(8, 12, 30, 31), lt.randn(12)
    same_bits("group_norm", function()
      local y, g = derive(function(a, b)
        return lt.group_norm(a, b, b, { num_groups = 4 })
      end, { x, w })
      return y, table.unpack(g)
    end)
  end)

  it("say what is wrong", function()
    for message, f in pairs {
      ["group_norm: num_groups is missing"] = function() lt.group_norm(lt.ones(2, 4)) end,
      ["group_norm: x must be .* divisible by num_groups = 3, got 2x4"] = function()
        lt.group_norm(lt.ones(2, 4), { num_groups = 3 })
      end,
      ["num_groups = 0"] = function() lt.group_norm(lt.ones(2, 4), { num_groups = 0 }) end,
      ["group_norm: weight must be float32 of 4"] = function()
        lt.group_norm(lt.ones(2, 4), lt.ones(2), { num_groups = 2 })
      end,
      ["instance_norm: x must be .*more than one element in each channel, got 2x4x1"] = function()
        lt.instance_norm(lt.ones(2, 4, 1))
      end,
    } do
      assert.error_matches(f, message)
    end
  end)
end)

describe("batch_norm", function()
  local shapes = { { 5, 3 }, { 2, 2, 4 }, { 3, 2, 5, 4 }, { 4, 3, 40 }, { 2, 2, 3, 3, 4 }, { 200, 70 } }

  it("has the derivatives of its formula in training", function()
    for _, shape in ipairs(shapes) do
      local c = shape[2]
      local x, w, b = normal(table.unpack(shape)), positive(c), normal(c)
      local dims, channels = { 1 }, { c }
      for d = 3, #shape do
        dims[d - 1], channels[d - 1] = d, 1
      end
      same_derivatives("batch_norm", function(a, e, f)
        return lt.batch_norm(a, nil, nil, e, f, { training = true, eps = 0.1 })
      end, function(a, e, f)
        return normalised(a, dims, 0.1) * e:reshape(channels) + f:reshape(channels)
      end, { x, w, b }, x:numel() < 100 and 2 or 0)
      same_derivatives("batch_norm", function(a)
        return lt.batch_norm(a:transpose(1, -1), nil, nil, nil, nil, { training = true })
      end, function(a)
        local t = a:transpose(1, -1)
        local over = { 1 }
        for d = 3, t.ndim do over[d - 1] = d end
        return normalised(t, over, 1e-5)
      end, { x })
    end
  end)

  it("uses the running statistics without training, as constants", function()
    for _, shape in ipairs(shapes) do
      local c = shape[2]
      local x, w, b, mean, var = normal(table.unpack(shape)), positive(c), normal(c), normal(c), positive(c)
      local channels = { c }
      for d = 3, #shape do channels[d - 1] = 1 end
      local before = flat(mean)
      same_derivatives("batch_norm", function(a, e, f)
        return lt.batch_norm(a, mean, var, e, f, { eps = 0.1 })
      end, function(a, e, f)
        local y = (a - mean:reshape(channels)) * (var:reshape(channels) + 0.1) ^ -0.5
        return y * e:reshape(channels) + f:reshape(channels)
      end, { x, w, b }, x:numel() < 100 and 2 or 0)
      assert.same(before, flat(mean))
    end
    local mean, var = lt.zeros(3), lt.ones(3)
    local tape <close> = lt.tape()
    tape:watch(mean)
    local y = lt.batch_norm(lt.ones(2, 3), mean, var)
    assert.is_nil(tape:gradient(y:sum(), mean))
  end)

  it("updates the running statistics in place", function()
    for _, momentum in ipairs { 0.1, 0, 1 } do
      local x = normal(4, 2, 3)
      local mean, stacked = lt.zeros(2), lt.ones({ 2, 2 }, { dtype = "float64" })
      local var = stacked[{ {}, 2 }]
      lt.batch_norm(x, mean, var, nil, nil, { training = true, momentum = momentum })
      for c = 1, 2 do
        local now, variance = moments(flat(x[{ {}, c }]))
        assert(math.abs(mean:get(c) - momentum * now) < 1e-6)
        local expected = (1 - momentum) + momentum * variance * 12 / 11
        assert(math.abs(var:get(c) - expected) < 1e-12)
        assert.equal(var:get(c), stacked:get(c, 2)) -- the memory itself
        assert.equal(1, stacked:get(c, 1))
      end
    end
  end)

  it("leaves them alone where there is nothing, or something is wrong", function()
    local mean, var = lt.zeros(2), lt.ones(2)
    assert.same({ 0, 2, 3 }, lt.batch_norm(lt.ones(0, 2, 3), mean, var, { training = true }).shape)
    assert(not pcall(lt.batch_norm, lt.ones(1, 2), mean, var, { training = true }))
    assert.same({ 0, 0 }, mean:totable())
    assert.same({ 1, 1 }, var:totable())
  end)

  it("does not write into what a tape recorded", function()
    local x, mean, var = lt.randn(4, 2), lt.zeros(2), lt.ones(2)
    local tape <close> = lt.tape()
    tape:watch(mean)
    assert.error_matches(function() lt.batch_norm(x, mean, var, { training = true }) end,
      "batch_norm: .* is recorded by the tape .*assigned")
    local repeated = lt.zeros(1):expand(2)
    assert.error_matches(function() lt.batch_norm(x, repeated, var, { training = true }) end,
      "batch_norm: elements of .* share memory")
  end)

  it("is noticed where a gradient needs what the running statistics were", function()
    local x, mean, var = lt.randn(4, 2), lt.zeros(2), lt.variable { 1, 1 }
    local tape <close> = lt.tape()
    local square = var * var
    lt.batch_norm(x, mean, var, { training = true })
    assert.error_matches(function() tape:gradient(square, var) end, "overwritten")
  end)

  it("gives the same bits for any number of threads", function()
    for _, shape in ipairs { { 40, 33, 20, 21 }, { 3000, 70 } } do
      local x, w = lt.randn(table.unpack(shape)), lt.randn(shape[2])
      same_bits("batch_norm", function()
        local y, g = derive(function(a, b)
          return lt.batch_norm(a, nil, nil, b, b, { training = true })
        end, { x, w })
        return y, table.unpack(g)
      end)
    end
  end)

  it("says what is wrong", function()
    local x = lt.ones(2, 3)
    for message, f in pairs {
      ["without training it needs running_mean and running_var"] = function() lt.batch_norm(x) end,
      ["x must be images x channels x ..., got 3"] = function()
        lt.batch_norm(lt.ones(3), { training = true })
      end,
      ["training needs more than one element in each channel, got 1x3"] = function()
        lt.batch_norm(lt.ones(1, 3), { training = true })
      end,
      ["running_var must be of 3, got 2"] = function() lt.batch_norm(x, lt.ones(3), lt.ones(2)) end,
      ["bias must be float32 of 3, got float32 of 4"] = function()
        lt.batch_norm(x, nil, nil, nil, lt.ones(4), { training = true })
      end,
    } do
      assert.error_matches(f, message)
    end
  end)
end)

describe("normalize, cosine_similarity, pairwise_distance, bilinear", function()
  it("are what plain Lua computes", function()
    local a, b = normal(5, 7), normal(5, 7)
    local unit, cosine = lt.normalize(a, { p = 3 }), lt.cosine_similarity(a, b)
    local distance = lt.pairwise_distance(a, b, { p = 1, eps = 0.5, keepdim = true })
    local w, bias = normal(4, 7, 7), normal(4)
    local form = lt.bilinear(a, b, w, bias)
    assert.same({ 5, 1 }, distance.shape)
    for r = 1, 5 do
      local x, y = a[r]:totable(), b[r]:totable()
      local p, xx, yy, xy, d = 0, 0, 0, 0, 0
      for j = 1, 7 do
        p = p + math.abs(x[j]) ^ 3
        xx, yy, xy = xx + x[j] ^ 2, yy + y[j] ^ 2, xy + x[j] * y[j]
        d = d + math.abs(x[j] - y[j] + 0.5)
      end
      assert(math.abs(unit:get(r, 2) - x[2] / p ^ (1 / 3)) < 1e-12)
      assert(math.abs(cosine:get(r) - xy / math.sqrt(xx * yy)) < 1e-12)
      assert(math.abs(distance:get(r, 1) - d) < 1e-12)
      for o = 1, 4 do
        local sum = bias:get(o)
        for i = 1, 7 do
          for j = 1, 7 do sum = sum + x[i] * w:get(o, i, j) * y[j] end
        end
        assert(math.abs(form:get(r, o) - sum) < 1e-11)
      end
    end
  end)

  it("divide by eps where a norm is smaller", function()
    local zero = lt.zeros(2, 3)
    assert.same({ { 0, 0, 0 }, { 0, 0, 0 } }, lt.normalize(zero):totable())
    assert.same({ 0, 0 }, lt.cosine_similarity(zero, lt.ones(2, 3)):totable())
  end)

  it("say what is wrong", function()
    for message, f in pairs {
      ["normalize: dim 2"] = function() lt.normalize(lt.ones(3)) end,
      ["cosine_similarity: shapes do not broadcast %(2x3 and 2x4%)"] = function()
        lt.cosine_similarity(lt.ones(2, 3), lt.ones(2, 4))
      end,
      ["pairwise_distance: takes vectors"] = function() lt.pairwise_distance(lt.ones {}, lt.ones {}) end,
      ["bilinear: takes x1 of"] = function() lt.bilinear(lt.ones(2, 3), lt.ones(2, 3), lt.ones(2, 3)) end,
      ["bilinear: bias must have 5 elements, got 4"] = function()
        lt.bilinear(lt.ones(2, 3), lt.ones(2, 3), lt.ones(5, 3, 3), lt.ones(4))
      end,
    } do
      assert.error_matches(f, message)
    end
  end)
end)
