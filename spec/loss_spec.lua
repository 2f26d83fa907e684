-- Losses against their formulas in plain Lua: shapes, options, reductions, weights; CTC against all
-- alignments one by one; what is special, empty or wrong; gradients of each sample by vmap.
local lt = require "luatape"
local values = require "spec.values"
local samples = require "spec.samples"

local random = samples.random(5)
local generators = samples.generators(random)
local normal, positive, integers = generators.normal, generators.positive, generators.integers

local TIGHT = { rtol = 1e-12, atol = 1e-12 }

local function assert_tensor(what, got, shape, data, tol)
  local difference = values.difference(what, got, { shape = shape, dtype = "float64", data = data },
    nil, tol or TIGHT)
  assert(not difference, difference)
end

local function item(t) return t:to("float64"):item() end

local function assert_near(expected, got, tolerance)
  if expected ~= expected then return assert(got ~= got, "expected nan, got " .. tostring(got)) end
  assert(math.abs(got - expected) <= (tolerance or 1e-12) * math.max(1, math.abs(expected)),
    ("expected %.17g, got %.17g"):format(expected, got))
end

local function gradient(f, ...)
  local sources = { ... }
  local tape <close> = lt.tape()
  for _, x in ipairs(sources) do tape:watch(x) end
  return tape:gradient(f(...), sources, { unconnected_gradients = "zero" })
end

local function sum_of(list)
  local sum = 0
  for _, v in ipairs(list) do sum = sum + v end
  return sum
end

-- ---- Pointwise losses ---------------------------------------------------------------------------

local function log1p(x) return math.abs(x) < 1e-5 and x - x * x / 2 + x ^ 3 / 3 or math.log(1 + x) end
local function softplus(x) return math.max(x, 0) + log1p(math.exp(-math.abs(x))) end
local function sigmoid(x) return 1 / (1 + math.exp(-x)) end
local function unit(...) return (positive(...) - 0.5) / 1.5 end -- within 0..1
local function signs(...) return integers(0, 1, ...) * 2 - 1 end
local function counts(...) return integers(0, 6, ...) end

local function stirling(t)
  return t > 1 and t * math.log(t) - t + 0.5 * math.log(2 * math.pi * t) or 0
end

-- Each: what draws the operands, the value, options to try (a default stands in the formula).
local pointwise = {
  mse_loss = { { normal, normal }, function(x, t) return (x - t) ^ 2 end, { {} }, weight = "mean" },
  l1_loss = { { normal, normal }, function(x, t) return math.abs(x - t) end, { {} }, weight = "mean" },
  huber_loss = { { normal, normal }, function(x, t, o)
    local d, delta = math.abs(x - t), o.delta or 1
    return d < delta and d * d / 2 or delta * (d - delta / 2)
  end, { {}, { delta = 0.3 } }, weight = "mean" },
  smooth_l1_loss = { { normal, normal }, function(x, t, o)
    local d, beta = math.abs(x - t), o.beta or 1
    return d < beta and d * d / 2 / beta or d - beta / 2
  end, { {}, { beta = 0.3 }, { beta = 0 } } },
  binary_cross_entropy = { { unit, unit }, function(p, t)
    return -t * math.log(p) - (1 - t) * log1p(-p)
  end, { {} }, weight = "count", alike = true },
  binary_cross_entropy_with_logits = { { normal, unit }, function(x, t)
    return -t * math.log(sigmoid(x)) - (1 - t) * math.log(sigmoid(-x))
  end, { {} }, weight = "count", alike = true },
  kl_div = { { normal, positive }, function(x, t, o)
    return o.log_target and math.exp(t) * (t - x) or t * (math.log(t) - x)
  end, { {}, { log_target = true } } },
  poisson_nll_loss = { { positive, counts }, function(x, t, o)
    local eps = o.eps or 1e-8
    local y = o.log_input == false and x - t * math.log(x + eps) or math.exp(x) - t * x
    return y + (o.full and stirling(t) or 0)
  end, { {}, { full = true }, { log_input = false, eps = 0.25 } } },
  hinge_loss = { { normal, signs }, function(x, t) return math.max(0, 1 - t * x) end, { {} } },
  hinge_embedding_loss = { { normal, signs }, function(x, t, o)
    return t == 1 and x or math.max(0, (o.margin or 1) - x)
  end, { {}, { margin = 0.4 } } },
  soft_margin_loss = { { normal, signs }, function(x, t) return softplus(-t * x) end, { {} } },
  margin_ranking_loss = { { normal, normal, signs }, function(x, y, t, o)
    return math.max(0, (o.margin or 0) - t * (x - y))
  end, { {}, { margin = 0.4 } } },
  gaussian_nll_loss = { { normal, normal, positive }, function(x, t, v, o)
    v = math.max(v, o.eps or 1e-6)
    return 0.5 * (math.log(v) + (x - t) ^ 2 / v) + (o.full and 0.5 * math.log(2 * math.pi) or 0)
  end, { {}, { full = true }, { eps = 1 } }, alike = true },
}

local function common(tensors)
  local shape = {}
  for _, t in ipairs(tensors) do
    for d = 1, t.ndim do
      local n = t.shape[t.ndim - d + 1]
      shape[d] = (shape[d] or 1) == 1 and n or shape[d]
    end
  end
  local forward = {}
  for d = #shape, 1, -1 do forward[#forward + 1] = shape[d] end
  return forward
end

---The values of a loss in row-major order, and their shape.
local function expected_values(f, tensors, options, weight)
  local all = { table.unpack(tensors) }
  all[#all + 1] = weight
  local shape, lists = common(all), {}
  for i, t in ipairs(all) do lists[i] = values.read(t:to("float64"):expand(shape)).data end
  local data, weights = {}, weight and table.remove(lists)
  for k = 1, #lists[1] do
    local operands = {}
    for i, list in ipairs(lists) do operands[i] = list[k] end
    operands[#operands + 1] = options
    data[k] = f(table.unpack(operands)) * (weights and weights[k] or 1)
  end
  return data, shape, weights
end

local function with(options, reduction)
  local copy = { reduction = reduction }
  for k, v in pairs(options) do copy[k] = v end
  return copy
end

local SHAPES = {
  { {}, {}, {} },
  { { 5 }, { 5 }, { 5 } },
  { { 2, 3, 4 }, { 2, 3, 4 }, { 2, 3, 4 } },
  { { 130, 130 }, { 130, 130 }, { 130, 130 } }, -- more than one task
  { { 4, 3 }, { 3 }, { 4, 1 } },
  { { 1, 3 }, { 2, 1 }, { 3 } },
  { { 5600, 3 }, { 5600, 1 }, { 3 } }, -- short rows, many to a task
}

for name, case in pairs(pointwise) do
  local draws, f, choices = table.unpack(case)
  describe(name, function()
    for k, shapes in ipairs(SHAPES) do
      if not (case.alike and k > 4) then
        it("has the formula's values, shapes " .. k, function()
          local tensors = {}
          for i, draw in ipairs(draws) do tensors[i] = draw(table.unpack(shapes[i])) end
          for _, options in ipairs(choices) do
            local data, shape = expected_values(f, tensors, options)
            local n = #tensors
            local function run(reduction)
              tensors[n + 1] = with(options, reduction)
              local y = lt[name](table.unpack(tensors))
              tensors[n + 1] = nil
              return y
            end
            assert_tensor("none", run "none", shape, data)
            assert_near(sum_of(data), item(run "sum"))
            assert_near(sum_of(data) / #data, item(run "mean"))
            if not next(options) then
              assert_near(sum_of(data) / #data, item(lt[name](table.unpack(tensors))))
            end
          end
        end)
      end
    end

    if case.weight then
      it("takes weights", function()
        for _, shape in ipairs { { 6, 5 }, { 5 }, { 6, 1 }, {} } do
          local x, t, w = draws[1](6, 5), draws[2](6, 5), positive(table.unpack(shape))
          local data, full, weights = expected_values(f, { x, t }, {}, w)
          local over = case.weight == "mean" and sum_of(weights) or #data
          assert_tensor("none", lt[name](x, t, w, { reduction = "none" }), full, data)
          assert_near(sum_of(data), item(lt[name](x, t, w, { reduction = "sum" })))
          assert_near(sum_of(data) / over, item(lt[name](x, t, w)))
        end
      end)
    end

    it("of nothing is nan, 0 or nothing", function()
      local tensors = {}
      for i, draw in ipairs(draws) do tensors[i] = draw(0, 2) end
      for reduction, value in pairs { mean = 0 / 0, sum = 0 } do
        tensors[#draws + 1] = { reduction = reduction }
        assert_near(value, item(lt[name](table.unpack(tensors))))
      end
      tensors[#draws + 1] = { reduction = "none" }
      assert.same({ 0, 2 }, values.read(lt[name](table.unpack(tensors))).shape)
    end)

    it("has the same bits on any number of threads", function()
      local before, tensors = lt.num_threads(), {}
      for i, draw in ipairs(draws) do
        tensors[i] = draw(500):unsqueeze(1):expand(600, 500):contiguous()
      end
      lt.set_num_threads(1)
      local one = item(lt[name](table.unpack(tensors)))
      lt.set_num_threads(3)
      local three = item(lt[name](table.unpack(tensors)))
      lt.set_num_threads(before)
      assert.equal(one, three)
    end)
  end)
end

describe("losses on numbers", function()
  it("add up large float32 tensors exactly enough", function()
    local x = lt.full({ 1000, 3000 }, 0.1)
    assert_near(0.01, item(lt.mse_loss(x, 0)), 1e-7)
    assert_near(0.1 * 3e6, item(lt.l1_loss(x, 0, nil, { reduction = "sum" })), 1e-7)
  end)

  it("take types as PyTorch promotes them", function()
    local x, t = lt.ones { 3 }, lt.tensor({ 1, 2, 3 }, { dtype = "int64" })
    assert.equal("float32", lt.mse_loss(x, t).dtype)
    assert.equal("float64", lt.mse_loss(x:to "float64", t).dtype)
    assert.equal("float32", lt.mse_loss(t, t).dtype)
    assert.equal("float32", lt.l1_loss(x, 2.5).dtype)
  end)

  it("know positive weights", function()
    local x, t, q, w = normal(4, 3), unit(4, 3), positive(3), positive(4, 1)
    local data, shape = expected_values(function(a, b, c)
      return -c * b * math.log(sigmoid(a)) - (1 - b) * math.log(sigmoid(-a))
    end, { x, t, q }, {}, w)
    local f = lt.binary_cross_entropy_with_logits
    assert_tensor("both", f(x, t, w, q, { reduction = "none" }), shape, data)
    assert_near(sum_of(data) / #data, item(f(x, t, w, q)))
  end)

  it("do not overflow", function()
    local x = lt.tensor({ 800, -800, 0 }, { dtype = "float64" })
    local t = lt.tensor({ 0, 1, 1 }, { dtype = "float64" })
    local none = { reduction = "none" }
    assert_tensor("logits", lt.binary_cross_entropy_with_logits(x, t, none), { 3 },
      { 800, 800, math.log(2) })
    assert_tensor("soft margin", lt.soft_margin_loss(x, t * 2 - 1, none), { 3 },
      { 800, 800, math.log(2) })
    local g = gradient(function(y) return lt.soft_margin_loss(y, t * 2 - 1, none) end, x)[1]
    assert_tensor("gradient", g, { 3 }, { 1, -1, -0.5 })
  end)

  it("bound the logarithms of probabilities, and refuse what is none", function()
    local p = lt.tensor({ 0, 1, 0, 1 }, { dtype = "float64" })
    local t = lt.tensor({ 0, 0, 1, 1 }, { dtype = "float64" })
    assert_tensor("values", lt.binary_cross_entropy(p, t, { reduction = "none" }), { 4 },
      { 0, 100, 100, 0 })
    assert.error_matches(function() lt.binary_cross_entropy(p + 0.5, t) end,
      "^[^\n]*binary_cross_entropy: input 1%.5 at element 2 is outside 0%.%.1")
    assert.error_matches(function() lt.binary_cross_entropy(p, t - 1, { reduction = "none" }) end,
      "target %-1 at element 1 is outside 0%.%.1")
    local nan = lt.binary_cross_entropy(p * (0 / 0), t)
    assert_near(0 / 0, item(nan))
  end)

  it("have PyTorch's gradients at kinks", function()
    local x = lt.tensor({ 1, 2 }, { dtype = "float64" })
    local sum = { reduction = "sum" }
    local function at(f, ...)
      local rest = { ... }
      return gradient(function(y) return f(y, table.unpack(rest)) end, x)[1]
    end
    assert_tensor("l1", at(lt.l1_loss, x, sum), { 2 }, { 0, 0 })
    assert_tensor("huber", at(lt.huber_loss, x - 1, { reduction = "sum", delta = 1 }), { 2 }, { 1, 1 })
    assert_tensor("smooth, 0", at(lt.smooth_l1_loss, x, { reduction = "sum", beta = 0 }), { 2 },
      { 0, 0 })
    assert_tensor("hinge", at(lt.hinge_loss, lt.tensor({ 1, 1 }), sum), { 2 }, { 0, 0 })
    assert_tensor("embedding",
      at(lt.hinge_embedding_loss, lt.tensor { -1, 1 }, { reduction = "sum", margin = 1 }), { 2 },
      { 0, 1 })
  end)

  it("divide kl_div by the batch", function()
    local x, t = normal(4, 3), positive(4, 3)
    assert_near(item(lt.kl_div(x, t, { reduction = "sum" })) / 4,
      item(lt.kl_div(x, t, { reduction = "batchmean" })))
    local zero = lt.kl_div(x, t * 0, { reduction = "none" })
    assert_tensor("0 ln 0", zero, { 4, 3 }, { 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0 })
  end)

  it("take variances of all of PyTorch's shapes", function()
    local x, t = normal(2, 3, 4), normal(2, 3, 4)
    for _, shape in ipairs { { 2, 3, 4 }, { 2, 3, 1 }, { 2, 3 }, { 2, 1, 4 } } do
      local var = positive(table.unpack(shape))
      local wide = #shape == 2 and var:unsqueeze(-1) or var
      local data, full = expected_values(pointwise.gaussian_nll_loss[2], { x, t, wide }, {})
      assert_tensor("shape", lt.gaussian_nll_loss(x, t, var, { reduction = "none" }), full, data)
    end
    assert.error_matches(function() lt.gaussian_nll_loss(x, t, positive(3, 2)) end,
      "gaussian_nll_loss: var must have input's shape 2x3x4")
    assert.error_matches(function() lt.gaussian_nll_loss(x, t, positive(2, 3) - 1.9) end,
      "gaussian_nll_loss: var %-[%d.]+ at element %d+ is outside 0%.%.inf")
    local tiny = lt.zeros({ 2, 3, 4 }, { dtype = "float64" })
    local g = gradient(function(v) return lt.gaussian_nll_loss(x, x, v, { eps = 0.5 }) end, tiny)[1]
    assert_near(24 / 24 / 2 / 0.5, sum_of(values.read(g).data)) -- the bound lets it pass
  end)

  it("refuse what does not fit", function()
    local x = lt.ones { 2, 3 }
    local function refused(pattern, f, ...)
      local rest = table.pack(...)
      assert.error_matches(function() f(table.unpack(rest, 1, rest.n)) end, pattern)
    end
    refused("mse_loss: shapes do not broadcast %(2x3 and 2%)", lt.mse_loss, x, lt.ones { 2 })
    refused("binary_cross_entropy: input and target must have the same shape, got 2x3 and 3",
      lt.binary_cross_entropy, x, lt.ones { 3 })
    refused("logits: weights must broadcast to input's shape 2x3, but make it 4x2x3",
      lt.binary_cross_entropy_with_logits, x, x, lt.ones { 4, 1, 1 })
    refused("huber_loss: delta must be positive, got 0", lt.huber_loss, x, x, { delta = 0 })
    refused("smooth_l1_loss: beta is negative", lt.smooth_l1_loss, x, x, { beta = -1 })
    refused("gaussian_nll_loss: eps must be positive", lt.gaussian_nll_loss, x, x, x, { eps = 0 })
  end)
end)

-- ---- Losses on vectors and classes ----------------------------------------------------------------

local function rows_of(t) return t:totable() end

local function check_reductions(f, expected, shape)
  assert_tensor("none", f "none", shape, expected)
  assert_near(sum_of(expected), item(f "sum"))
  assert_near(sum_of(expected) / #expected, item(f "mean"))
end

describe("cosine_embedding_loss", function()
  it("has the formula's values", function()
    local a, b, t = normal(5, 3), normal(5, 3), signs(5)
    for _, margin in ipairs { 0, 0.3, -0.5 } do
      local x, y, expected = rows_of(a), rows_of(b), {}
      for n = 1, 5 do
        local xy, xx, yy = 0, 1e-12, 1e-12
        for i = 1, 3 do
          xy, xx, yy = xy + x[n][i] * y[n][i], xx + x[n][i] ^ 2, yy + y[n][i] ^ 2
        end
        local cosine = xy / math.sqrt(xx * yy)
        expected[n] = t[n]:item() == 1 and 1 - cosine or math.max(0, cosine - margin)
      end
      check_reductions(function(reduction)
        return lt.cosine_embedding_loss(a, b, t, { margin = margin, reduction = reduction })
      end, expected, { 5 })
      assert_near(expected[2], item(lt.cosine_embedding_loss(a[2], b[2], t[2], { margin = margin })))
    end
    assert.error_matches(function() lt.cosine_embedding_loss(a, b, signs(4)) end,
      "cosine_embedding_loss: takes inputs of N x D and a target of N.*got 5x3, 5x3 and 4")
  end)
end)

describe("triplet_margin_loss", function()
  it("has the formula's values", function()
    local a, p, n = normal(4, 3), normal(4, 3), normal(4, 3)
    local function distance(x, y, power, eps)
      local sum = 0
      for i = 1, 3 do sum = sum + math.abs(x[i] - y[i] + eps) ^ power end
      return sum ^ (1 / power)
    end
    for _, o in ipairs { {}, { swap = true }, { p = 1, margin = 0.5 }, { p = 3, eps = 0.1 } } do
      local power, eps, margin, expected = o.p or 2, o.eps or 1e-6, o.margin or 1, {}
      local x, y, z = rows_of(a), rows_of(p), rows_of(n)
      for k = 1, 4 do
        local far = distance(x[k], z[k], power, eps)
        if o.swap then far = math.min(far, distance(y[k], z[k], power, eps)) end
        expected[k] = math.max(0, margin + distance(x[k], y[k], power, eps) - far)
      end
      check_reductions(function(reduction) return lt.triplet_margin_loss(a, p, n, with(o, reduction)) end,
        expected, { 4 })
    end
    assert.error_matches(function() lt.triplet_margin_loss(a, p, normal(3)) end,
      "triplet_margin_loss: takes three tensors .* got 4x3, 4x3 and 3")
  end)
end)

describe("multi_margin_loss", function()
  it("has the formula's values", function()
    local x, t, w = normal(6, 4), integers(1, 4, 6), positive(4)
    for _, o in ipairs { {}, { p = 2 }, { margin = 0.3 }, { p = 2, weighted = true } } do
      local rows, labels, weights, expected = rows_of(x), rows_of(t), rows_of(w), {}
      for n = 1, 6 do
        local sum = 0
        for i = 1, 4 do
          local gap = math.max(0, (o.margin or 1) - rows[n][labels[n]] + rows[n][i])
          if i ~= labels[n] then sum = sum + gap ^ (o.p or 1) end
        end
        expected[n] = sum / 4 * (o.weighted and weights[labels[n]] or 1)
      end
      check_reductions(function(reduction)
        return lt.multi_margin_loss(x, t, o.weighted and w or nil,
          { p = o.p, margin = o.margin, reduction = reduction })
      end, expected, { 6 })
    end
    assert_near(item(lt.multi_margin_loss(x[3]:unsqueeze(1), t[3]:unsqueeze(1))),
      item(lt.multi_margin_loss(x[3], t[3])))
    assert.error_matches(function() lt.multi_margin_loss(x, t + 1 + t * 0) end,
      "multi_margin_loss: label 5 at element %d+ is outside 1%.%.4")
    assert.error_matches(function() lt.multi_margin_loss(x, t, { p = 3 }) end, "p must be 1 or 2, got 3")
    assert.error_matches(function() lt.multi_margin_loss(x, t, positive(3)) end,
      "takes one weight for each class")
  end)
end)

describe("multilabel_margin_loss", function()
  it("has the formula's values and gradient", function()
    local x = normal(4, 5)
    local t = lt.tensor({ { 3, 1, -1, 2, 2 }, { -1, 1, 2, 3, 4 }, { 5, 5, -1, 1, 1 }, { 1, 2, 3, 4, 5 } },
      { dtype = "int64" })
    local labels = { { 3, 1 }, {}, { 5, 5 }, { 1, 2, 3, 4, 5 } }
    local rows, expected, slopes = rows_of(x), {}, {}
    for n, list in ipairs(labels) do
      local marked, sum, slope = {}, 0, { 0, 0, 0, 0, 0 }
      for _, y in ipairs(list) do marked[y] = true end
      for _, y in ipairs(list) do
        for i = 1, 5 do
          local gap = 1 - rows[n][y] + rows[n][i]
          if not marked[i] and gap > 0 then
            sum, slope[i], slope[y] = sum + gap, slope[i] + 0.2, slope[y] - 0.2
          end
        end
      end
      expected[n] = sum / 5
      for i = 1, 5 do slopes[#slopes + 1] = slope[i] end
    end
    check_reductions(function(reduction)
      return lt.multilabel_margin_loss(x, t, { reduction = reduction })
    end, expected, { 4 })
    local g = gradient(function(y) return lt.multilabel_margin_loss(y, t, { reduction = "sum" }) end, x)
    assert_tensor("gradient", g[1], { 4, 5 }, slopes)
    assert_near(expected[1], item(lt.multilabel_margin_loss(x[1], t[1])))
    assert.error_matches(function() lt.multilabel_margin_loss(x, t + 1) end,
      "multilabel_margin_loss: label %d+ at element %d+ is outside 1%.%.5")
  end)
end)

describe("multilabel_soft_margin_loss", function()
  it("is the mean over classes of the cross entropies", function()
    local x, t, w = normal(4, 5), integers(0, 1, 4, 5), positive(5)
    local data = expected_values(pointwise.binary_cross_entropy_with_logits[2], { x, t }, {}, w)
    local expected = {}
    for k, v in ipairs(data) do
      local n = (k - 1) // 5 + 1
      expected[n] = (expected[n] or 0) + v / 5
    end
    check_reductions(function(reduction)
      return lt.multilabel_soft_margin_loss(x, t, w, { reduction = reduction })
    end, expected, { 4 })
  end)
end)

describe("cross_entropy", function()
  ---The sum over classes of share * weight * log p, and what the mean divides by
  local function place(logits, label, weights, o)
    local max, sum = math.max(table.unpack(logits)), 0
    for _, x in ipairs(logits) do sum = sum + math.exp(x - max) end
    local loss, smoothing = 0, o.label_smoothing or 0
    if label == o.ignore_index then return 0, 0 end
    for i, x in ipairs(logits) do
      local given = type(label) == "table" and label[i] or (label == i and 1 or 0)
      local share = (1 - smoothing) * given + smoothing / #logits
      loss = loss - share * weights[i] * (x - max - math.log(sum))
    end
    return loss, type(label) == "table" and 1 or weights[label]
  end

  it("has the formula's values", function()
    local x, labels, p, w = normal(5, 4), integers(1, 4, 5), positive(5, 4), positive(4)
    local cases = {
      { labels }, { labels, w }, { p }, { p, w },
      { labels, w, { label_smoothing = 0.2 } }, { p, w, { label_smoothing = 0.3 } },
      { labels, w, { ignore_index = 2 } },
      { labels, nil, { ignore_index = 1, label_smoothing = 0.1 } },
      { p, nil, { ignore_index = -100 } },
    }
    for _, case in ipairs(cases) do
      local o = case[3] or {}
      local weights = case[2] and rows_of(case[2]) or { 1, 1, 1, 1 }
      local rows, targets, expected, over = rows_of(x), rows_of(case[1]), {}, 0
      for n = 1, 5 do
        local loss, count = place(rows[n], targets[n], weights, o)
        expected[n], over = loss, over + count
      end
      local function f(reduction) return lt.cross_entropy(x, case[1], case[2], with(o, reduction)) end
      assert_tensor("none", f "none", { 5 }, expected)
      assert_near(sum_of(expected), item(f "sum"))
      assert_near(sum_of(expected) / over, item(f "mean"))
      if not o.label_smoothing and case[1] == labels then
        local log_p = lt.log_softmax(x, { dim = 2 })
        assert_near(sum_of(expected) / over, item(lt.nll_loss(log_p, labels, case[2], o)))
      end
    end
  end)

  it("takes further dims as places", function()
    local x, labels = normal(2, 4, 3, 2), integers(1, 4, 2, 3, 2)
    local flat = x:permute(1, 3, 4, 2):reshape(12, 4)
    local y = lt.cross_entropy(x, labels, { reduction = "none" })
    assert_tensor("places", y, { 2, 3, 2 },
      values.read(lt.cross_entropy(flat, labels:reshape(12), { reduction = "none" })).data)
  end)

  it("gives each sample's gradient in one run of vmap", function()
    local x, t = normal(3, 5, 4), integers(1, 4, 3, 5)
    local p, w, all = positive(3, 5, 4), positive(4), lt.full({ 3, 5 }, 2, { dtype = "int64" })
    local cases = {
      { t }, { t, w }, { p }, { t, w, { ignore_index = 2, label_smoothing = 0.1 } },
      { t, nil, { reduction = "sum" } }, { all, w, { ignore_index = 2 } },
    }
    for _, name in ipairs { "cross_entropy", "nll_loss" } do
      for k, case in ipairs(cases) do
        local o = case[3] and with(case[3], case[3].reduction) or {}
        if name == "nll_loss" then o.label_smoothing = nil end
        if not (name == "nll_loss" and case[1] == p) then
          local function loss(a, b) return lt[name](a, b, case[2], o) end
          local got = lt.vmap(lt.value_and_grad(loss))
          local value, g = got(x, case[1])
          for n = 1, 3 do
            local y, dx = lt.value_and_grad(loss)(x[n], case[1][n])
            assert_tensor(name .. k, value[n], {}, values.read(y).data)
            assert_tensor(name .. " gradient " .. k, g[n], { 5, 4 }, values.read(dx).data)
          end
        end
      end
    end
  end)
end)

-- ---- CTC ------------------------------------------------------------------------------------------

---The sum of the probabilities of all paths of `steps` classes that collapse to the labels.
local function ctc_by_paths(log_probs, steps, labels, blank)
  local wanted, total = table.concat(labels, " "), 0
  local path = {}
  local function collapsed()
    local list, last = {}, nil
    for _, class in ipairs(path) do
      if class ~= last and class ~= blank then list[#list + 1] = class end
      last = class
    end
    return table.concat(list, " ")
  end
  local function walk(t, log_p)
    if t > steps then
      if collapsed() == wanted then total = total + math.exp(log_p) end
      return
    end
    for class, lp in ipairs(log_probs[t]) do
      path[t] = class
      walk(t + 1, log_p + lp)
    end
  end
  walk(1, 0)
  return -math.log(total)
end

describe("ctc_loss", function()
  local function int(list) return lt.tensor(list, { dtype = "int64" }) end

  local cases = { -- classes, steps, input lengths, targets, target lengths, blank
    { 3, 5, { 5, 4 }, { { 2, 3 }, { 3, 1 } }, { 2, 1 }, 1 },
    { 3, 5, { 5, 5, 3 }, { { 2, 2 }, { 1, 2 }, { 2, 9 } }, { 2, 2, 1 }, 3 },
    { 4, 4, { 4, 2 }, { { 1, 4, 1 }, { 3, 0, 0 } }, { 3, 0 }, 2 },
    { 2, 6, { 6, 5 }, { { 2, 2, 2 }, { 2, 2, 2 } }, { 3, 3 }, 1 },
    { 3, 3, { 1, 0 }, { { 2 }, { 2 } }, { 1, 0 }, 1 },
  }

  local function expected_losses(case, log_probs)
    local _, _, inputs, targets, lengths, blank = table.unpack(case)
    local rows, losses = rows_of(log_probs), {}
    for n in ipairs(inputs) do
      local own = {}
      for t in ipairs(rows) do own[t] = rows[t][n] end
      losses[n] = ctc_by_paths(own, inputs[n], { table.unpack(targets[n], 1, lengths[n]) }, blank)
    end
    return losses
  end

  for k, case in ipairs(cases) do
    local classes, steps, inputs, targets, lengths, blank = table.unpack(case)
    local count, flat = #inputs, {}
    for n in ipairs(inputs) do
      for i = 1, lengths[n] do flat[#flat + 1] = targets[n][i] end
    end

    it("sums over all alignments, case " .. k, function()
      local log_probs = lt.log_softmax(normal(steps, count, classes), { dim = -1 })
      local losses, mean = expected_losses(case, log_probs), 0
      for n, loss in ipairs(losses) do mean = mean + loss / math.max(lengths[n], 1) / count end
      local function f(t, reduction)
        return lt.ctc_loss(log_probs, int(t), int(inputs), int(lengths),
          { blank = blank, reduction = reduction })
      end
      for _, t in ipairs { targets, flat } do
        assert_tensor("none", f(t, "none"), { count }, losses)
        assert_near(sum_of(losses), item(f(t, "sum")))
        assert_near(mean, item(f(t)))
      end
      local last = { table.unpack(targets[1], 1, lengths[1]) }
      assert_near(losses[1], item(lt.ctc_loss(log_probs:select(2, 1), int(last), inputs[1],
        lengths[1], { blank = blank, reduction = "sum" })))
    end)

    it("has its gradient behind log_softmax, case " .. k, function()
      local x, c = normal(steps, count, classes), normal(count)
      for _, reduction in ipairs { "none", "mean", "sum" } do
        local function f(y)
          local loss = lt.ctc_loss(lt.log_softmax(y, { dim = -1 }), int(targets), int(inputs),
            int(lengths), { blank = blank, reduction = reduction })
          return reduction == "none" and (loss * c):sum() or loss
        end
        local direction = normal(steps, count, classes)
        local h = 2 ^ -16
        local slope = (item(f(x + direction * h)) - item(f(x - direction * h))) / (2 * h)
        local g = gradient(f, x)[1]
        assert_near(slope, item((g * direction):sum()), 1e-7)
        local hv = lt.hvp(f, x, direction)
        local function first(y) return gradient(f, y)[1] end
        local change = (first(x + direction * h) - first(x - direction * h)) / (2 * h)
        assert_tensor("hvp", type(hv) == "table" and hv[1] or hv, { steps, count, classes },
          values.read(change).data, { rtol = 1e-6, atol = 1e-7 })
      end
    end)
  end

  it("is infinite without an alignment, or zero where that is asked for", function()
    local x = normal(2, 2, 3)
    local function f(y, zero)
      return lt.ctc_loss(lt.log_softmax(y, { dim = -1 }), int { { 2, 2 }, { 3, 2 } }, int { 2, 2 },
        int { 2, 1 }, { reduction = "none", zero_infinity = zero })
    end
    local plain, zero = f(x, false), f(x, true)
    assert.equal(math.huge, plain[1]:item())
    assert.equal(0, zero[1]:item())
    assert.equal(plain[2]:item(), zero[2]:item())
    local g, g0 = gradient(function(y) return f(y, false) end, x)[1],
      gradient(function(y) return f(y, true) end, x)[1]
    for t = 1, 2 do
      for class = 1, 3 do
        assert_near(0 / 0, g[t][1][class]:item())
        assert.equal(0, g0[t][1][class]:item())
        assert_near(g[t][2][class]:item(), g0[t][2][class]:item())
      end
    end
    local nan = lt.ctc_loss(x * (0 / 0), int { { 2 }, { 2 } }, int { 2, 2 }, int { 1, 1 },
      { zero_infinity = true })
    assert_near(0 / 0, item(nan))
  end)

  it("knows classes of no probability", function()
    local lp = lt.tensor({ { 0, -math.huge }, { -math.huge, 0 } }, { dtype = "float64" })
    local g = gradient(function(y) return lt.ctc_loss(y, int { 2 }, 2, 1) end, lp)[1]
    assert_near(0, item(lt.ctc_loss(lp, int { 2 }, 2, 1)))
    assert_tensor("gradient", g, { 2, 2 }, { 0, 0, 0, 0 })
  end)

  it("computes in double also for float32, the same on any number of threads", function()
    local x = lt.log_softmax(normal(60, 8, 10):to "float32", { dim = -1 })
    local t, inputs, lengths = integers(2, 10, 8, 12), integers(50, 60, 8), integers(1, 12, 8)
    local function f(lp) return lt.ctc_loss(lp, t, inputs, lengths, { reduction = "sum" }) end
    assert_near(item(f(x:to "float64")), item(f(x)), 1e-6)
    local before = lt.num_threads()
    lt.set_num_threads(1)
    local one = values.read(gradient(f, x)[1]).data
    lt.set_num_threads(3)
    assert.same(one, values.read(gradient(f, x)[1]).data)
    lt.set_num_threads(before)
  end)

  it("says what is wrong with its arguments", function()
    local lp = lt.zeros { 4, 2, 3 }
    local t, inputs, lengths = int { { 2, 3 }, { 3, 2 } }, int { 4, 4 }, int { 2, 1 }
    local function refused(pattern, ...)
      local a = table.pack(...)
      assert.error_matches(function() lt.ctc_loss(table.unpack(a, 1, a.n)) end, pattern)
    end
    refused("log_probs must be steps x sequences x classes.*got 4", lt.zeros { 4 }, t, inputs, lengths)
    refused("input_lengths has 5 for sequence 2, outside 0%.%.4, the steps of log_probs", lp, t,
      int { 4, 5 }, lengths)
    refused("target_lengths has 3 for sequence 1, outside 0%.%.2", lp, t, inputs, int { 3, 1 })
    refused("input_lengths must be int64 of 2, one for each sequence, got int64 3", lp, t,
      int { 4, 4, 4 }, lengths)
    refused("input_lengths must be int64 of 2", lp, t, inputs:to "float32", lengths)
    refused("targets must have a row for each of 2 sequences", lp, int { { 2 }, { 2 }, { 2 } }, inputs,
      lengths)
    refused("target_lengths add up to more than the 3 labels", lp, int { 2, 3, 2 }, inputs,
      int { 2, 2 })
    refused("label 2 of sequence 1 is 4, outside 1%.%.3", lp, int { { 2, 4 }, { 2, 4 } }, inputs,
      lengths)
    refused("label 1 of sequence 2 is 1, the blank; labels are the others of 1%.%.3", lp,
      int { { 2, 3 }, { 1, 1 } }, inputs, lengths)
    refused("blank 9 is not one of 3 classes", lp, t, inputs, lengths, { blank = 9 })
  end)

  it("takes batches of nothing", function()
    local none = lt.zeros({ 0 }, { dtype = "int64" })
    local empty = lt.zeros({ 0, 2 }, { dtype = "int64" })
    local lp = lt.zeros { 4, 0, 3 }
    assert_near(0 / 0, item(lt.ctc_loss(lp, empty, none, none)))
    assert.same({ 0 }, values.read(lt.ctc_loss(lp, empty, none, none, { reduction = "none" })).shape)
  end)
end)
