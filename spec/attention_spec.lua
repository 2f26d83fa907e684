-- Attention by tiles against plain Lua and against the same made of matmul and softmax: lengths
-- around the sizes of tiles, masks, broadcasting, layouts, second derivatives, memory, threads.
local lt = require "luatape"
local samples = require "spec.samples"

local random = samples.random(20250302)
local generators = samples.generators(random)
local normal = generators.normal
local attend = lt.scaled_dot_product_attention

local function assert_close(what, got, expected, tolerance)
  assert.same(expected.shape, got.shape, what)
  if got:numel() == 0 then return end
  local apart = (got - expected):abs():max():item()
  assert(apart <= (tolerance or 1e-11) * math.max(1, expected:abs():max():item()),
    ("%s: apart by %g"):format(what, apart))
end

---Attention made of ops. `mask`: bool, true attends, or float, added. No row may be masked as a whole.
local function composed(q, k, v, mask, options)
  options = options or {}
  local scores = q:matmul(k:transpose(-2, -1)) * (options.scale or q.shape[q.ndim] ^ -0.5)
  if options.is_causal then
    mask = lt.ones({ q.shape[q.ndim - 1], k.shape[k.ndim - 1] }):tril():to "bool"
  end
  if mask and mask.dtype == "bool" then
    scores = lt.where(mask, scores, -math.huge)
  elseif mask then
    scores = scores + mask
  end
  return scores:softmax(-1):matmul(v)
end

---Value and gradients of <noise, f(tensors)>; with `more`, those of the squares of gradients.
local function derive(f, tensors, more)
  local tape <close> = lt.tape()
  for _, t in ipairs(tensors) do tape:watch(t) end
  if more then
    local y, gradients = derive(f, tensors)
    local sum = 0
    for i, g in ipairs(gradients) do sum = sum + (g * g * (1 + i / 4)):sum() end
    return y, tape:gradient(sum, tensors)
  end
  local y = f(table.unpack(tensors))
  local noise = lt.cos(lt.range(1, y:numel()):to(y.dtype)):reshape(y.shape)
  return y, tape:gradient((y * noise):sum(), tensors)
end

local function same_derivatives(what, f, reference, tensors, more, tolerance)
  for order = 0, more and 1 or 0 do
    local y, gradients = derive(f, tensors, order == 1)
    local expected, expected_gradients = derive(reference, tensors, order == 1)
    assert_close(what, y, expected, tolerance)
    for i, g in ipairs(expected_gradients) do
      assert_close(("%s, gradient %d"):format(what, i), gradients[i], g, tolerance or 1e-10)
    end
  end
end

---A bool mask in which every row has a true.
local function keys_for_all(...)
  local here = lt.range(1, select(-1, ...)):eq(1)
  return generators.mask(...):logical_or(here:expand(...))
end

local LENGTHS = { 1, 2, 15, 16, 17, 40, 63, 64, 65, 100, 127, 128, 129, 200, 257, 300 }
local function size() return LENGTHS[random(1, #LENGTHS)] end

describe("scaled_dot_product_attention", function()
  it("is what plain Lua computes", function()
    for _, l in ipairs { 1, 17, 70 } do
      local s, e, ev = 131, 3, 2
      local q, k, v = normal(l, e) * 3, normal(s, e), normal(s, ev)
      local y = attend(q, k, v, { is_causal = true, scale = 0.8 })
      local a, b, c = q:totable(), k:totable(), v:totable()
      for i = 1, l do
        local sum, out = 0, { 0, 0 }
        for j = 1, math.min(i, s) do
          local score = 0
          for d = 1, e do score = score + 0.8 * a[i][d] * b[j][d] end
          sum = sum + math.exp(score)
          for d = 1, ev do out[d] = out[d] + math.exp(score) * c[j][d] end
        end
        for d = 1, ev do assert(math.abs(y:get(i, d) - out[d] / sum) < 1e-12) end
      end
    end
  end)

  it("has the gradients of its formula, for lengths around the tiles'", function()
    for round = 1, 40 do
      local l, s, e, ev = size(), size(), random(1, 9), random(1, 9)
      local q, k, v = normal(2, l, e), normal(2, s, e), normal(2, s, ev)
      local way = round % 4
      local mask = way == 1 and keys_for_all(2, l, s) or way == 2 and normal(l, s) or nil
      local options = way == 3 and { is_causal = true } or { scale = round % 3 == 0 and 0.3 or nil }
      local what = ("%dx%d by %dx%d, way %d"):format(l, e, s, ev, way)
      local tensors = { q, k, v }
      if way == 2 then tensors[4] = mask end
      same_derivatives(what, function(a, b, c, m) return attend(a, b, c, m or mask, options) end,
        function(a, b, c, m) return composed(a, b, c, m or mask, options) end, tensors,
        l * s < 1000)
    end
  end)

  it("broadcasts leading dimensions and masks", function()
    local q, k, v = normal(2, 3, 5, 4), normal(3, 70, 4), normal(2, 1, 70, 6)
    for _, shape in ipairs { { 70 }, { 5, 1 }, { 1, 70 }, { 3, 1, 70 }, { 2, 1, 5, 70 }, { 2, 3, 5, 70 } } do
      local added, kept = normal(table.unpack(shape)), shape[#shape] > 1 and keys_for_all(table.unpack(shape))
      same_derivatives("float mask", attend, composed, { q, k, v, added }, true)
      if kept then
        same_derivatives("bool mask", function(a, b, c) return attend(a, b, c, kept) end,
          function(a, b, c) return composed(a, b, c, kept) end, { q, k, v }, true)
      end
    end
    local wide = attend(q, k, v, lt.zeros({}, { dtype = "float64" }))
    assert_close("0-d mask", wide, attend(q, k, v))
    assert.same({ 4, 6 }, attend(normal(4, 3), normal(5, 3), normal(5, 6)).shape)
  end)

  it("takes any layout", function()
    local x = normal(2, 66, 3, 4, 5) -- images, time, parts, heads, features
    local function parts(f)
      return function(t)
        local list = {}
        for i = 1, 3 do list[i] = t[{ {}, {}, i }]:transpose(2, 3) end
        return f(table.unpack(list))
      end
    end
    same_derivatives("heads", parts(attend), parts(composed), { x })
    local turned = normal(5, 70):transpose()
    same_derivatives("transposed", attend, composed, { turned, turned * 2, normal(3, 70):transpose() })
    same_derivatives("expanded", function(a) return attend(a:expand(70, 5), turned, turned) end,
      function(a) return composed(a:expand(70, 5), turned, turned) end, { normal(1, 5) })
  end)

  it("shares heads of keys among heads of queries", function()
    for _, l in ipairs { 3, 80 } do
      local q, k, v = normal(2, 6, l, 4), normal(2, 2, 5, 4), normal(2, 2, 5, 3)
      local function spread(t)
        local shape = t.shape
        return t:unsqueeze(3):expand(2, 2, 3, shape[3], shape[4]):reshape(2, 6, shape[3], shape[4])
      end
      for _, mask in ipairs { false, normal(l, 5), normal(2, 1, l, 5), normal(2, 6, l, 5), normal(6, l, 5) } do
        local tensors = { q, k, v, mask or nil }
        same_derivatives("gqa", function(a, b, c, m) return attend(a, b, c, m, { enable_gqa = true }) end,
          function(a, b, c, m) return composed(a, spread(b), spread(c), m) end, tensors, l == 3)
      end
    end
  end)

  it("gives 0, and gradients of 0, where every key is masked", function()
    local q, k, v = normal(70, 3), normal(130, 3), normal(130, 2)
    local kept = lt.ones({ 70, 130 }, { dtype = "bool" })
    kept[5] = false
    kept[66] = false
    local added = lt.where(kept, 0.0, -math.huge):to "float64"
    for _, mask in ipairs { kept, added } do
      local y, g = derive(function(a, b, c) return attend(a, b, c, mask) end, { q, k, v })
      for _, row in ipairs { 5, 66 } do
        assert.same({ 0, 0 }, y[row]:totable())
        assert.same({ 0, 0, 0 }, g[1][row]:totable())
      end
      for _, t in ipairs { y, table.unpack(g) } do
        assert.is_true(t:isfinite():all():item())
        assert.is_true(t:abs():max():item() > 0)
      end
      local _, second = derive(function(a, b, c) return attend(a, b, c, mask) end, { q, k, v }, true)
      for _, t in ipairs(second) do assert.is_true(t:isfinite():all():item()) end
    end
    local _, g = derive(attend, { q, k, v, added })
    assert.is_true(g[4]:isfinite():all():item())
    assert.equal(0, g[4][66]:abs():max():item())
  end)

  it("does not overflow", function()
    local q, k = lt.full({ 2, 4 }, 300), lt.full({ 200, 4 }, 300)
    local v = lt.range(1, 200):to("float32"):reshape(200, 1)
    assert_close("large scores", attend(q, k, v), lt.full({ 2, 1 }, 100.5), 1e-6)
    assert_close("small scores", attend(q, -k, v), lt.full({ 2, 1 }, 100.5), 1e-6)
  end)

  it("is nearly the same in float32", function()
    local q, k, v = normal(3, 150, 32), normal(3, 170, 32), normal(3, 170, 16)
    local y, g = derive(attend, { q, k, v })
    local z, h = derive(attend, { q:to "float32", k:to "float32", v:to "float32" })
    assert_close("float32", z:to "float64", y, 1e-6)
    for i = 1, 3 do assert_close("float32 gradient", h[i]:to "float64", g[i], 4e-6) end
  end)

  it("takes empty tensors", function()
    assert.same({ 0, 3 }, attend(normal(0, 2), normal(4, 2), normal(4, 3)).shape)
    assert.same({ { 0, 0, 0 } }, attend(normal(1, 2), lt.zeros({ 0, 2 }, { dtype = "float64" }),
      lt.zeros({ 0, 3 }, { dtype = "float64" })):totable())
    local y, g = derive(attend, { lt.zeros(0, 3, 2), lt.zeros(0, 4, 2), lt.zeros(0, 4, 5) })
    assert.same({ 0, 3, 5 }, y.shape)
    assert.same({ 0, 4, 2 }, g[2].shape)
  end)

  it("drops weights", function()
    local q, k, v = normal(2, 30, 4), normal(2, 50, 4), lt.ones({ 2, 50, 1 }, { dtype = "float64" })
    lt.manual_seed(1)
    local y = attend(q, k, v, { dropout_p = 0.5 })
    lt.manual_seed(1)
    local weights = (q:matmul(k:transpose()) * 0.5):softmax(-1)
    assert_close("dropout", y, lt.dropout(weights, { p = 0.5 }):matmul(v))
    assert.is_true(math.abs(y:mean():item() - 1) < 0.1 and y:std():item() > 0.01)
  end)

  it("keeps no matrix of weights", function()
    local t, before = 2048, lt.memory().peak
    while 4 * t * t < 2 * before do t = t * 2 end -- one would be the highest peak so far
    local q, k, v = lt.randn(t, 2), lt.randn(t, 2), lt.randn(t, 2)
    local live = lt.memory().live
    local tape <close> = lt.tape()
    for _, x in ipairs { q, k, v } do tape:watch(x) end
    local y = attend(q, k, v)
    assert.is_true(lt.memory().live - live < 64 * t)
    assert.same({ t, 2 }, tape:gradient(y, k).shape)
    assert.is_true(lt.memory().peak < math.max(before, live) + 4 * t * t / 8)
  end)

  it("gives the same bits for any number of threads", function()
    local q, k, v = lt.randn(5, 200, 24), lt.randn(5, 210, 24), lt.randn(5, 210, 20)
    local before, first = lt.num_threads(), nil
    for n = 1, 3 do
      lt.set_num_threads(n)
      local y, g = derive(function(a, b, c) return attend(a, b, c, { is_causal = true }) end, { q, k, v })
      first = first or { y, table.unpack(g) }
      for i, t in ipairs { y, table.unpack(g) } do assert.is_true(t:eq(first[i]):all():item()) end
    end
    lt.set_num_threads(before)
  end)

  it("says what is wrong", function()
    local q, k = lt.ones(2, 3, 4), lt.ones(2, 5, 4)
    for message, f in pairs {
      ["key and value differ in length"] = function() attend(q, k, lt.ones(2, 6, 4)) end,
      ["query and key differ in their last dimension"] = function() attend(q, lt.ones(2, 5, 3), k) end,
      ["leading dimensions do not broadcast"] = function() attend(q, lt.ones(3, 5, 4), k) end,
      ["dtypes differ"] = function() attend(q, k, k:to "float64") end,
      ["at least two dimensions"] = function() attend(lt.ones(4), k, k) end,
      ["attn_mask must broadcast to 2x3x5, got 3x4"] = function() attend(q, k, k, lt.ones(3, 4)) end,
      ["attn_mask must broadcast to 2x3x5, got 4x1x3x5"] = function() attend(q, k, k, lt.ones(4, 1, 3, 5)) end,
      ["attn_mask must be bool %(true attends%) or float32 %(added%), got int64"] = function()
        attend(q, k, k, lt.ones({ 3, 5 }, { dtype = "int64" }))
      end,
      ["takes attn_mask or is_causal, not both"] = function()
        attend(q, k, k, lt.ones(3, 5), { is_causal = true })
      end,
      ["enable_gqa needs equal numbers of heads"] = function()
        attend(lt.ones(4, 3, 2), lt.ones(3, 5, 2), lt.ones(3, 5, 2), { enable_gqa = true })
      end,
      ["dropout_p must be in 0..1, got 2"] = function() attend(q, k, k, { dropout_p = 2 }) end,
    } do
      assert.error_matches(f, "scaled_dot_product_attention: .*" .. message)
    end
  end)
end)

describe("multi_head_attention", function()
  local e, heads = 6, 3
  local w_in, b_in, w_out, b_out = normal(3 * e, e), normal(3 * e), normal(e, e), normal(e)

  ---One head after the other.
  local function reference(q, k, v, padding, mask)
    local function third(x, i)
      local rows = { { (i - 1) * e + 1, i * e } }
      return x:matmul(w_in[rows]:transpose()) + b_in[rows]
    end
    local a, b, c = third(q, 1), third(k, 2), third(v, 3)
    local parts, weights = {}, 0
    for h = 1, heads do
      local columns = { {}, {}, { (h - 1) * 2 + 1, h * 2 } }
      local scores = a[columns]:matmul(b[columns]:transpose()) / 2 ^ 0.5
      if padding then scores = lt.where(padding:unsqueeze(2), -math.huge, scores) end
      if mask then scores = scores + mask end
      local p = scores:softmax(-1)
      weights = weights + p / heads
      parts[h] = p:matmul(c[columns])
    end
    return lt.cat(parts, { dim = -1 }):matmul(w_out:transpose()) + b_out, weights
  end

  local q, k, v = normal(2, 5, e), normal(2, 7, e), normal(2, 7, e)
  local function mha(a, b, c, padding, mask, options)
    options = options or {}
    options.num_heads = heads
    return lt.multi_head_attention(a, b, c, w_in, b_in, w_out, b_out, padding, mask, options)
  end

  it("is one attention for each head, with or without the weights", function()
    local padding = keys_for_all(2, 7):logical_not()
    local mask = normal(5, 7)
    for _, masks in ipairs { {}, { padding }, { nil, mask }, { padding, mask } } do
      local y, weights = mha(q, k, v, masks[1], masks[2])
      local expected, expected_weights = reference(q, k, v, masks[1], masks[2])
      assert_close("output", y, expected)
      assert_close("weights", weights, expected_weights)
      local alone = table.pack(mha(q, k, v, masks[1], masks[2], { need_weights = false }))
      assert.equal(1, alone.n)
      assert_close("without weights", alone[1], expected)
      for _, need in ipairs { true, false } do
        same_derivatives("mha", function(a, b, c)
          return (mha(a, b, c, masks[1], masks[2], { need_weights = need }))
        end, function(a, b, c) return (reference(a, b, c, masks[1], masks[2])) end, { q, k, v }, true)
      end
    end
  end)

  it("projects what is the same tensor at once", function()
    local f = function(a) return (mha(a, a, a)) end
    local g = function(a) return (mha(a, a * 1, a * 1)) end
    same_derivatives("self", f, g, { q })
    same_derivatives("cross", function(a, b) return (mha(a, b, b)) end,
      function(a, b) return (mha(a, b, b * 1)) end, { q, k })
  end)

  it("takes masks for each head, bool masks, and tensors without a batch", function()
    local each = keys_for_all(2 * heads, 5, 7):logical_not()
    local y, weights = mha(q, k, v, nil, each, { average_attn_weights = false })
    local z = mha(q, k, v, nil, lt.where(each, -math.huge, 0.0):to "float64")
    assert.same({ 2, heads, 5, 7 }, weights.shape)
    assert_close("bool mask", y, z)
    local zero = weights:eq(0):reshape(2 * heads, 5, 7)
    assert.is_true(zero:eq(each):all():item())
    local single, w = mha(q[1], k[1], v[1], nil, each[{ { 1, heads } }])
    assert_close("without a batch", single, y[1])
    assert.same({ 5, 7 }, w.shape)
    assert.same({ 5, e }, mha(q[1], k[1], v[1], each[1][1], nil, { need_weights = false }).shape)
  end)

  it("gives the output of a query whose keys are all masked no weights", function()
    local padding = lt.zeros({ 2, 7 }, { dtype = "bool" })
    padding[2] = true
    for _, need in ipairs { true, false } do
      local y, weights = mha(q, k, v, padding, nil, { need_weights = need })
      assert_close("bias alone", y[2], b_out:expand(5, e))
      if need then assert.equal(0, weights[2]:abs():max():item()) end
    end
  end)

  it("says what is wrong", function()
    for message, f in pairs {
      ["num_heads = 4 does not divide the 6 features of query"] = function()
        lt.multi_head_attention(q, k, v, w_in, b_in, w_out, b_out, { num_heads = 4 })
      end,
      ["value must be 2x7x6, got 2x5x6"] = function() mha(q, k, q) end,
      ["in_proj_weight must be 18x6, got 6x6"] = function()
        lt.multi_head_attention(q, k, v, w_out, b_in, w_out, b_out, { num_heads = 2 })
      end,
      ["key_padding_mask must be 2x7, got 2x5"] = function()
        mha(q, k, v, lt.ones({ 2, 5 }, { dtype = "bool" }))
      end,
      ["attn_mask must be 5x7, got 7x5"] = function() mha(q, k, v, nil, normal(7, 5)) end,
      ["attn_mask must be 6x5x7, got 2x5x7"] = function() mha(q, k, v, nil, normal(2, 5, 7)) end,
      ["attn_mask must be float64 %(added%) or bool"] = function()
        mha(q, k, v, nil, lt.ones(5, 7))
      end,
      ["query, key and value must be N x L x E"] = function() mha(q, k[1], v[1]) end,
    } do
      assert.error_matches(f, "multi_head_attention: .*" .. message)
    end
  end)
end)
