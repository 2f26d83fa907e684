-- Recurrent networks and cells against programs that go step by step: values, first, second and
-- third derivatives, in every form of the options; their errors, memory, threads and dropout.
local lt = require "luatape"
local values = require "spec.values"
local samples = require "spec.samples"

local KINDS = { "rnn_tanh", "rnn_relu", "gru", "lstm" }
local GATES = { rnn_tanh = 1, rnn_relu = 1, gru = 3, lstm = 4 }
local TIGHT = { rtol = 1e-12, atol = 1e-12 }

local function assert_same(what, got, expected, tol)
  local difference = values.difference(what, got, values.read(expected), nil, tol)
  assert(not difference, difference)
end

-- ---- Programs, step by step ---------------------------------------------------------------------

local function product(x, w, bias)
  local y = x:matmul(w:transpose())
  return bias and y + bias or y
end

local step = {}
function step.rnn_tanh(xw, hw) return lt.tanh(xw + hw) end
function step.rnn_relu(xw, hw) return lt.relu(xw + hw) end
function step.gru(xw, hw, h)
  local n = h.shape[2]
  local function gate(t, k) return t:narrow(2, (k - 1) * n + 1, n) end
  local r = lt.sigmoid(gate(xw, 1) + gate(hw, 1))
  local z = lt.sigmoid(gate(xw, 2) + gate(hw, 2))
  local new = lt.tanh(gate(xw, 3) + r * gate(hw, 3))
  return (1 - z) * new + z * h
end
function step.lstm(xw, hw, h, c)
  local n = h.shape[2]
  local function gate(k) return (xw + hw):narrow(2, (k - 1) * n + 1, n) end
  local i, f, o = lt.sigmoid(gate(1)), lt.sigmoid(gate(2)), lt.sigmoid(gate(4))
  c = f * c + i * lt.tanh(gate(3))
  return o * lt.tanh(c), c
end

---The network as PyTorch's formulas have it. `mask(layer, x)` is what stands between layers.
---@return table list of y, h_n and, of lstm, c_n
local function program(kind, x, states, weights, o, mask)
  local batched = x.ndim == 3
  local h0, c0 = states[1], states[2]
  if not batched then
    x, h0, c0 = x:unsqueeze(2), h0:unsqueeze(2), c0 and c0:unsqueeze(2)
  elseif o.batch_first then
    x = x:transpose(1, 2)
  end
  local directions, per_cell = o.bidirectional and 2 or 1, o.bias == false and 2 or 4
  local h_n, c_n = {}, {}
  for layer = 1, o.num_layers or 1 do
    local halves = {}
    for d = 1, directions do
      local cell = (layer - 1) * directions + d
      local w = { table.unpack(weights, (cell - 1) * per_cell + 1, cell * per_cell) }
      local h, c = h0[cell], c0 and c0[cell]
      local outputs = {}
      local steps = x.shape[1]
      for k = 1, steps do
        local t = d == 1 and k or steps + 1 - k
        h, c = step[kind](product(x[t], w[1], w[3]), product(h, w[2], w[4]), h, c)
        outputs[t] = h
      end
      halves[d] = lt.stack(outputs)
      h_n[cell], c_n[cell] = h, c
    end
    x = directions == 2 and lt.cat(halves, { dim = 3 }) or halves[1]
    if mask and layer < (o.num_layers or 1) then x = mask(layer, x) end
  end
  if not batched then
    x = x:squeeze(2)
  elseif o.batch_first then
    x = x:transpose(1, 2)
  end
  local function state(list)
    local t = lt.stack(list)
    return batched and t or t:squeeze(2)
  end
  return { x, state(h_n), kind == "lstm" and state(c_n) or nil }
end

local function network(kind, x, states, weights, o)
  if kind == "lstm" then return { lt.lstm(x, states[1], states[2], weights, o) } end
  return { lt[kind](x, states[1], weights, o) }
end

-- ---- Inputs -------------------------------------------------------------------------------------

---Random inputs for a network of these sizes.
local function inputs(kind, o, sizes, seed)
  local normal = samples.generators(samples.random(seed or 5)).normal
  local steps, batch, width, hidden = table.unpack(sizes)
  local directions, layers = o.bidirectional and 2 or 1, o.num_layers or 1
  local x
  if not batch then
    x = normal(steps, width)
  elseif o.batch_first then
    x = normal(batch, steps, width)
  else
    x = normal(steps, batch, width)
  end
  local states = {}
  for i = 1, kind == "lstm" and 2 or 1 do
    states[i] = batch and normal(layers * directions, batch, hidden)
      or normal(layers * directions, hidden)
  end
  local weights, rows, scale = {}, GATES[kind] * hidden, 0.7 / math.sqrt(hidden)
  for layer = 1, layers do
    for _ = 1, directions do
      weights[#weights + 1] = normal(rows, layer == 1 and width or hidden * directions) * scale
      weights[#weights + 1] = normal(rows, hidden) * scale
      if o.bias ~= false then
        local lift = kind == "rnn_relu" and 1 or 0 -- or few units are above 0
        weights[#weights + 1] = normal(rows) + lift
        weights[#weights + 1] = normal(rows)
      end
    end
  end
  return x, states, weights
end

local function all_of(x, states, weights)
  local list = { x, table.unpack(states) }
  table.move(weights, 1, #weights, #list + 1, list)
  return list
end

---As all_of, taken apart again.
local function parts_of(list, states)
  return list[1], { table.unpack(list, 2, 1 + states) }, { table.unpack(list, 2 + states) }
end

local function noise(list, seed)
  local normal = samples.generators(samples.random(seed)).normal
  local result = {}
  for i, t in ipairs(list) do result[i] = normal(table.unpack(t.shape)):to(t.dtype) end
  return result
end

local function watching(list, o)
  local tape = lt.tape(o)
  for _, t in ipairs(list) do tape:watch(t) end
  return tape
end

local function inner(a, b)
  local sum = 0
  for i, t in ipairs(a) do sum = sum + (t * b[i]):sum() end
  return sum
end

---Results of f(list), and the gradients of their product with noise.
local function first(f, list)
  local tape <close> = watching(list)
  local results = f(list)
  return results, tape:gradient(results, list, { output_gradients = noise(results, 7) })
end

---The derivative of order n: gradients of <gradients of order n - 1, noise>.
local function derivative(n, f, list)
  if n == 1 then return select(2, first(f, list)) end
  local tape <close> = watching(list)
  local below = derivative(n - 1, f, list)
  local sum = inner(below, noise(below, 10 + n))
  return tape:gradient(sum, list, { unconnected_gradients = "zero" })
end

---Both ways of a network, as functions of one list of all tensors.
local function both(kind, o, states, mask)
  local function fused(list)
    local x, s, w = parts_of(list, states)
    return network(kind, x, s, w, o)
  end
  local function composed(list)
    local x, s, w = parts_of(list, states)
    return program(kind, x, s, w, o, mask)
  end
  return fused, composed
end

local function compare(kind, o, sizes, order, mask)
  local x, states, weights = inputs(kind, o, sizes)
  local list = all_of(x, states, weights)
  local fused, composed = both(kind, o, #states, mask)
  if order == 1 then
    local results, gradients = first(fused, list)
    local expected, expected_gradients = first(composed, list)
    assert.equal(#expected, #results)
    for i, t in ipairs(expected) do assert_same("result " .. i, results[i], t, TIGHT) end
    for i, t in ipairs(expected_gradients) do
      assert_same("gradient " .. i, gradients[i], t, { rtol = 1e-11, atol = 1e-11 })
    end
    local plain = fused(list) -- without a tape nothing is kept
    for i, t in ipairs(results) do assert_same("unrecorded " .. i, plain[i], t) end
    return
  end
  local got, expected = derivative(order, fused, list), derivative(order, composed, list)
  for i, t in ipairs(expected) do
    assert_same(("derivative %d, %d"):format(order, i), got[i], t, { rtol = 1e-9, atol = 1e-9 })
  end
end

-- ---- The specs ----------------------------------------------------------------------------------

local BOTH = { false, true }

for _, kind in ipairs(KINDS) do
  describe(kind, function()
    it("is the program of its formulas, in every form of the options", function()
      for layers = 1, 2 do
        for _, bidirectional in ipairs(BOTH) do
          for _, batch_first in ipairs(BOTH) do
            for _, bias in ipairs(BOTH) do
              local o = { num_layers = layers, bidirectional = bidirectional,
                batch_first = batch_first, bias = bias }
              compare(kind, o, { 5, 3, 4, 2 }, 1)
              compare(kind, o, { 3, nil, 2, 3 }, 1)
            end
          end
        end
      end
    end)

    it("is so for one step, one sample, one input, one unit, and larger sizes", function()
      for _, sizes in ipairs { { 1, 2, 3, 2 }, { 4, 1, 3, 2 }, { 4, 2, 1, 2 }, { 4, 2, 3, 1 },
        { 2, 300, 3, 2 }, { 70, 7, 5, 33 } } do
        compare(kind, {}, sizes, 1)
        compare(kind, { bidirectional = true, batch_first = true }, sizes, 1)
      end
    end)

    it("has the second and third derivatives of the program", function()
      compare(kind, {}, { 3, 2, 2, 2 }, 2)
      compare(kind, { num_layers = 2, bidirectional = true, batch_first = true }, { 3, 2, 2, 2 }, 2)
      compare(kind, { bias = false }, { 2, nil, 3, 2 }, 2)
      compare(kind, { bidirectional = true }, { 2, 1, 2, 2 }, 3)
    end)

    it("gives gradients of what is asked for alone", function()
      local o = { num_layers = 2, batch_first = true }
      local x, states, weights = inputs(kind, o, { 4, 2, 3, 2 })
      local list = all_of(x, states, weights)
      local fused = both(kind, o, #states)
      local _, all = first(fused, list)
      for i, t in ipairs(list) do
        local tape <close> = watching { t }
        local results = fused(list)
        local g = tape:gradient(results, t, { output_gradients = noise(results, 7) })
        assert_same("input " .. i, g, all[i])
      end
    end)

    it("takes one value in several places", function()
      local x, states, weights = inputs(kind, {}, { 3, 1, 2, 2 })
      weights[4] = weights[3]
      if kind == "lstm" then states[2] = states[1] end
      local tied = { x, states[1], weights[1], weights[2], weights[3] }
      local function with(f)
        return function(t)
          local s = kind == "lstm" and { t[2], t[2] } or { t[2] }
          return f(kind, t[1], s, { t[3], t[4], t[5], t[5] }, {})
        end
      end
      for order = 1, 2 do
        local got, expected = derivative(order, with(network), tied),
          derivative(order, with(program), tied)
        for i, t in ipairs(expected) do
          assert_same("tied " .. i, got[i], t, { rtol = 1e-9, atol = 1e-9 })
        end
      end
    end)

    it("can be walked back twice, and its gradient recorded by the same tape", function()
      local x, states, weights = inputs(kind, {}, { 3, 2, 2, 2 })
      local list = all_of(x, states, weights)
      local found = {}
      for i, f in ipairs { both(kind, {}, #states) } do
        local tape <close> = watching(list, { persistent = true })
        local y = f(list)[1]
        local g, again = tape:gradient(y, x), tape:gradient(y, x)
        assert_same("again", again, g)
        found[i] = tape:gradient((g * g):sum(), weights[1])
      end
      assert.is_true(found[1]:abs():sum():item() > 0)
      assert_same("recorded", found[1], found[2], TIGHT)
    end)

    it("is one node of a tape, however long", function()
      local x, states, weights = inputs(kind, { num_layers = 2 }, { 50, 2, 2, 2 })
      local fused = both(kind, { num_layers = 2 }, #states)
      local list = all_of(x, states, weights)
      local tape <close> = watching(list)
      local y = fused(list)[1]
      assert.equal(1, tape.count)
      assert.equal(#list, #tape:gradient(y, list))
    end)

    it("has the same bits for any number of threads", function()
      local o = { num_layers = 2, bidirectional = true }
      local before = lt.num_threads()
      for _, dtype in ipairs { "float32", "float64" } do
        local x, states, weights = inputs(kind, o, { 6, 48, 70, 96 })
        local list = all_of(x, states, weights)
        for i, t in ipairs(list) do list[i] = t:to(dtype) end
        local fused = both(kind, o, #states)
        lt.set_num_threads(1)
        local results, gradients = first(fused, list)
        for n = 2, 3 do
          lt.set_num_threads(n)
          local others, other_gradients = first(fused, list)
          for i, t in ipairs(results) do assert_same("result " .. i, others[i], t) end
          for i, t in ipairs(gradients) do assert_same("gradient " .. i, other_gradients[i], t) end
        end
        lt.set_num_threads(before)
      end
    end)

    it("takes an empty batch, of which weights have zero gradients", function()
      for _, batch_first in ipairs(BOTH) do
        local o = { bidirectional = true, num_layers = 2, batch_first = batch_first }
        local x, states, weights = inputs(kind, o, { 3, 2, 4, 2 })
        x = batch_first and x:narrow(1, 1, 0) or x:narrow(2, 1, 0)
        for i, s in ipairs(states) do states[i] = s:narrow(2, 1, 0) end
        local list = all_of(x, states, weights)
        local results, gradients = first(both(kind, o, #states), list)
        assert.same(batch_first and { 0, 3, 4 } or { 3, 0, 4 }, values.read(results[1]).shape)
        assert.same({ 4, 0, 2 }, values.read(results[2]).shape)
        for i, g in ipairs(gradients) do
          assert.same(values.read(list[i]).shape, values.read(g).shape)
          if g:numel() > 0 then assert.equal(0, g:abs():max():item()) end
        end
      end
    end)

    it("refuses what does not fit, and says what", function()
      local x, states, weights = inputs(kind, { num_layers = 2, bidirectional = true },
        { 3, 2, 4, 2 })
      local o = { num_layers = 2, bidirectional = true }
      local rows = GATES[kind] * 2
      local function refused(words, changed, options)
        local t = { x = x, states = states, weights = weights }
        for key, v in pairs(changed) do t[key] = v end
        local fine, message = pcall(network, kind, t.x, t.states, t.weights, options or o)
        assert.is_false(fine)
        assert(message:find(words, 1, true), ("no '%s' in: %s"):format(words, message))
        assert(message:find(kind .. ":", 1, true), message)
      end
      local function weight(i, t)
        local list = { table.unpack(weights) }
        list[i] = t
        return { weights = list }
      end
      local normal = samples.generators(samples.random(3)).normal
      refused("no time steps", { x = x:narrow(1, 1, 0) })
      refused("x must be steps x batch x inputs", { x = normal(3) })
      refused("h0 must be", { states = { states[1][1], states[2] } })
      refused("h0 must be float64 4x2x2, got float64 3x2x2",
        { states = { normal(3, 2, 2), states[2] } })
      refused("h0 must be float64 4x3x2", { x = normal(3, 3, 4) })
      refused("h0 must be float64", { states = { states[1]:to "float32", states[2] } })
      refused("needs 16 weights (for each layer and direction w_ih, w_hh, b_ih, b_hh), got 4",
        { weights = { table.unpack(weights, 1, 4) } })
      refused("needs 8 weights (for each layer and direction w_ih, w_hh), got 16", {},
        { num_layers = 2, bidirectional = true, bias = false })
      refused("num_layers must be at least 1", {}, { num_layers = 0 })
      refused(("w_ih of layer 1 (weight 1) must be float64 %dx4, got float64 1x4"):format(rows),
        weight(1, normal(1, 4)))
      refused(("w_hh of layer 1, backwards in time, (weight 6) must be float64 %dx2"):format(rows),
        weight(6, normal(rows, 3)))
      refused(("w_ih of layer 2, backwards in time, (weight 13) must be float64 %dx4"):format(rows),
        weight(13, normal(rows, 2)))
      refused(("b_hh of layer 2 (weight 12) must be float64 %d, got float32"):format(rows),
        weight(12, weights[12]:to "float32"))
      refused("dropout must be in 0..1", {},
        { num_layers = 2, bidirectional = true, dropout = 1.5 })
    end)

    it("drops between layers with the masks of dropout", function()
      local o = { num_layers = 3, bidirectional = true, batch_first = true, dropout = 0.4,
        seed = 11, counter = 5 }
      local steps, batch, width, hidden = 5, 3, 4, 3
      local each = (steps * batch * hidden * 2 + 3) // 4
      local function mask(layer, x)
        return lt.dropout(x, { p = 0.4, seed = 11, counter = 5 + (layer - 1) * each })
      end
      compare(kind, o, { steps, batch, width, hidden }, 1, mask)
      compare(kind, o, { steps, batch, width, hidden }, 2, mask)
      o.train = false
      compare(kind, o, { steps, batch, width, hidden }, 1)
    end)

    it("draws new masks for each call, which the gradient draws again", function()
      local o = { num_layers = 2, dropout = 0.5 }
      local x, states, weights = inputs(kind, o, { 4, 3, 2, 8 })
      local fused = both(kind, o, #states)
      local list = all_of(x, states, weights)
      local a, b = fused(list)[1], fused(list)[1]
      assert.is_true((a - b):abs():max():item() > 0)
      lt.manual_seed(3)
      local tape <close> = watching(list)
      local y = fused(list)[1]
      lt.rand(10)
      local g = tape:gradient(y, x)
      local direction, size = noise({ x }, 5)[1], 2 ^ -17
      local function along(s)
        lt.manual_seed(3)
        return fused(all_of(x + direction * s, states, weights))[1]:sum():item()
      end
      local expected = (along(size) - along(-size)) / (2 * size)
      local got = (g * direction):sum():item()
      assert(math.abs(got - expected) < 1e-6 * math.max(1, math.abs(expected)),
        got .. " against " .. expected)
    end)

    it("runs under vmap as a larger batch, and its gradient, too", function()
      for _, sizes in ipairs { { 3, 2, 4, 2 }, { 3, nil, 4, 2 } } do
        for _, batch_first in ipairs(BOTH) do
          local o = { batch_first = batch_first, num_layers = 2, bidirectional = true }
          local x, states, weights = inputs(kind, o, sizes)
          local many = all_of(x, states, {})
          for i, t in ipairs(many) do
            many[i] = lt.stack { t, noise({ t }, i)[1], noise({ t }, 10 + i)[1] }
          end
          local function gradients(...)
            local list = { ... }
            local tape <close> = watching(list)
            local results = both(kind, o, #states)(all_of(list[1], { table.unpack(list, 2) },
              weights))
            local sum = inner(results, noise(results, 7))
            local found = tape:gradient(sum, list)
            return results[1], results[2], table.unpack(found)
          end
          local got = { lt.vmap(gradients)(table.unpack(many)) }
          for n = 1, 3 do
            local sample = {}
            for i, t in ipairs(many) do sample[i] = t[n] end
            for k, t in ipairs { gradients(table.unpack(sample)) } do
              assert_same(("result %d of sample %d"):format(k, n), got[k][n], t, TIGHT)
            end
          end
        end
      end
    end)
  end)

  describe(kind .. "_cell", function()
    local function cell(t, w)
      if kind == "lstm" then return lt.lstm_cell(t[1], t[2], t[3], table.unpack(w, 1, 4)) end
      return lt[kind .. "_cell"](t[1], t[2], table.unpack(w, 1, 4))
    end

    it("is a step of the network, with any of the biases", function()
      for _, present in ipairs { { true, true }, { false, false }, { true, false },
        { false, true } } do
        local x, states, w = inputs(kind, {}, { 1, 3, 4, 2 })
        local zeros = lt.zeros({ GATES[kind] * 2 }, { dtype = "float64" })
        local full = { w[1], w[2], present[1] and w[3] or zeros, present[2] and w[4] or zeros }
        local given = { w[1], w[2], present[1] and w[3] or nil, present[2] and w[4] or nil }
        local expected = program(kind, x, states, full, {})
        for batched = 0, 1 do
          local t = { x[1], states[1][1], states[2] and states[2][1] }
          if batched == 0 then
            for i, v in ipairs(t) do t[i] = v[2] end
          end
          local got = { cell(t, given) }
          assert.equal(#states, #got)
          for i, state in ipairs(got) do
            local want = expected[1 + i][1]
            assert_same("state " .. i, state, batched == 1 and want or want[2], TIGHT)
          end
        end
      end
    end)

    it("in a loop is the network, with its gradients", function()
      local x, states, w = inputs(kind, {}, { 4, 2, 3, 2 })
      local list = all_of(x, states, w)
      local function loop(t)
        local outputs, h, c = {}, t[2][1], kind == "lstm" and t[3][1] or nil
        local weights = { table.unpack(t, 2 + #states) }
        for k = 1, 4 do
          h, c = cell({ t[1][k], h, c }, weights)
          outputs[k] = h
        end
        return { lt.stack(outputs), lt.stack { h }, c and lt.stack { c } }
      end
      for order = 1, 2 do
        local got = derivative(order, loop, list)
        local expected = derivative(order, (both(kind, {}, #states)), list)
        for i, t in ipairs(expected) do
          assert_same("gradient " .. i, got[i], t, { rtol = 1e-10, atol = 1e-10 })
        end
      end
    end)

    it("refuses what does not fit", function()
      local x, states, w = inputs(kind, {}, { 1, 3, 4, 2 })
      local t = { x[1], states[1][1], states[2] and states[2][1] }
      local function refused(words, inside, weights)
        local fine, message = pcall(cell, inside, weights)
        assert.is_false(fine)
        assert(message:find(words, 1, true), message)
      end
      refused("x and h must be", { x, t[2], t[3] }, w)
      refused("w_ih must be", t, { w[2], w[2], w[3], w[4] })
      refused("w_hh must be", t, { w[1], w[1], w[3], w[4] })
      refused("b_ih must be", t, { w[1], w[2], w[1], w[4] })
      refused("b_hh must be", t, { w[1], w[2], w[3], w[4]:to "float32" })
      refused("h must be float64 3x2, got float32 3x2", { t[1], t[2]:to "float32", t[3] }, w)
    end)
  end)
end

describe("recurrent networks", function()
  it("pass NaN on", function()
    for _, kind in ipairs(KINDS) do
      local x, states, weights = inputs(kind, {}, { 2, 1, 2, 2 })
      local y = network(kind, x * (0 / 0), states, weights, {})[1]
      for _, v in ipairs(y:reshape(-1):totable()) do assert.is_true(v ~= v, kind) end
    end
  end)

  it("take weights one by one, and functions of any stored form", function()
    local x, states, w = inputs("gru", {}, { 3, 2, 4, 2 })
    local y = lt.gru(x, states[1], w)
    assert_same("one by one", lt.gru(x, states[1], w[1], w[2], w[3], w[4]), y)
    local turned = lt.gru(x:transpose(1, 3):contiguous():transpose(1, 3), states[1], {
      w[1]:transpose():contiguous():transpose(), w[2], w[3], w[4] })
    assert_same("turned", turned, y)
  end)
end)
