-- Embeddings against plain loops, sparse gradients from the tape to the optimizers, and that
-- everything else refuses them.
local lt = require "luatape"
local optim = lt.optim

local function int(values, dtype) return lt.tensor(values, { dtype = dtype or "int64" }) end
local function f64(values) return lt.tensor(values, { dtype = "float64" }) end
local function randn(...) return (lt.randn({ ... }, { dtype = "float64" })) end

local function near(expected, got, tolerance)
  assert.same(expected.shape, got.shape)
  assert.equal(expected.dtype, got.dtype)
  if expected:numel() == 0 then return end
  local worst = (expected - got):abs():max():item()
  assert(worst <= (tolerance or 1e-13), "they differ by " .. worst)
end

local function same_bits(expected, got) near(expected, got, 0) end

---f(tape) under a tape.
local function under(f)
  local tape <close> = lt.tape()
  return f(tape)
end

---The gradient of sum <dy, f(weight)> for the weight.
local function gradient_of(f, weight, dy)
  return (under(function(tape)
    tape:watch(weight)
    return (tape:gradient(f(weight), weight, { output_gradients = dy }))
  end))
end

local function refuses(pattern, f, ...)
  local ok, message = pcall(f, ...)
  assert(not ok, "was accepted")
  assert(tostring(message):find(pattern, 1, true), message)
end

-- ---- Plain loops ---------------------------------------------------------------------------------

---Rows of a table of rows; its gradient for dy, a list of rows. o: padding (from 1), freq.
local function lookup(list, weight)
  local rows = {}
  for k, i in ipairs(list) do rows[k] = weight[i] end
  return rows
end

local function zeros(n, d)
  local t = {}
  for i = 1, n do
    t[i] = {}
    for j = 1, d do t[i][j] = 0.0 end
  end
  return t
end

local function added(list, dy, n, d, padding, freq)
  local sum, count = zeros(n, d), {}
  for k, i in ipairs(list) do
    count[i] = (count[i] or 0) + 1
    for j = 1, d do
      if i ~= padding then sum[i][j] = sum[i][j] + dy[k][j] end
    end
  end
  for i, c in pairs(count) do
    for j = 1, d do sum[i][j] = freq and sum[i][j] / c or sum[i][j] end
  end
  return sum
end

---Bags as lists of { place, row }, from options.
local function bags_of(index, offsets, padding, include_last)
  local bags = {}
  local function add(b, place, i)
    if i ~= padding then table.insert(bags[b], { place, i }) end
  end
  if not offsets then
    for b, row in ipairs(index) do
      bags[b] = {}
      for k, i in ipairs(row) do add(b, (b - 1) * #row + k, i) end
    end
    return bags
  end
  local n = include_last and #offsets - 1 or #offsets
  for b = 1, n do
    bags[b] = {}
    for k = offsets[b], (offsets[b + 1] or #index + 1) - 1 do add(b, k, index[k]) end
  end
  return bags
end

local function bag_value(bags, weight, d, mode, scale)
  local y = {}
  for b, bag in ipairs(bags) do
    y[b] = {}
    for j = 1, d do
      local sum, most = 0.0, nil
      for _, entry in ipairs(bag) do
        local x = weight[entry[2]][j] * (scale and scale[entry[1]] or 1)
        sum = sum + x
        most = (not most or x > most) and x or most
      end
      if mode == "mean" then y[b][j] = #bag > 0 and sum / #bag or 0.0
      elseif mode == "sum" then y[b][j] = sum
      else y[b][j] = most or 0.0 end
    end
  end
  return y
end

-- ---- Embedding -----------------------------------------------------------------------------------

describe("embedding", function()
  it("takes rows, from indices of any shape and tables stored in any way", function()
    for _, dtype in ipairs { "int64", "int32" } do
      local w = randn(7, 5)
      local list = { 3, 7, 1, 3, 3, 2 }
      local expected = f64(lookup(list, w:totable()))
      same_bits(expected, lt.embedding(int(list, dtype), w))
      same_bits(expected:reshape(2, 3, 5), lt.embedding(int(list, dtype):reshape(2, 3), w))
      same_bits(expected, lt.embedding(int(list, dtype), w:transpose(1, 2):contiguous():transpose(1, 2)))
      same_bits(w[7], lt.embedding(int(7, dtype), w))
      same_bits(expected[{ {}, { 2, 5, 2 } }], lt.embedding(int(list, dtype), w[{ {}, { 2, 5, 2 } }]))
      same_bits(expected[{ { 1, 6, 2 } }], lt.embedding(int(list, dtype)[{ { 1, 6, 2 } }], w))
    end
    assert.same({ 0, 3 }, lt.embedding(lt.zeros({ 0 }, { dtype = "int64" }), randn(4, 3)).shape)
    assert.same({ 2, 0 }, lt.embedding(int { 1, 4 }, randn(4, 0)).shape)
    assert.same({ { 5, 6 }, { 1, 2 } },
      lt.embedding(int { 3, 1 }, int { { 1, 2 }, { 3, 4 }, { 5, 6 } }):totable())
  end)

  it("adds the gradient's rows, without the padding's and by frequency", function()
    local list = {}
    for k = 1, 400 do list[k] = 1 + (k * k * 7 + k) % 11 end
    for _, o in ipairs { {}, { padding_idx = 3 }, { padding_idx = -1 }, { scale_grad_by_freq = true },
      { padding_idx = 8, scale_grad_by_freq = true } } do
      local padding = o.padding_idx
      padding = padding and (padding < 0 and padding + 13 or padding)
      local w, dy = randn(12, 3), randn(400, 3)
      local expected =
        f64(added(list, dy:totable(), 12, 3, padding, o.scale_grad_by_freq))
      local function f(x) return lt.embedding(int(list), x, o) end
      near(expected, gradient_of(f, w, dy), 1e-12)
      near(expected, gradient_of(f, w, dy:transpose(1, 2):contiguous():transpose(1, 2)), 1e-12)
      local single = gradient_of(f, w:to "float32", dy:to "float32")
      near(expected, single:to "float64", 1e-5)
    end
  end)

  it("has the second derivative of what its gradient is, also where that is no derivative", function()
    local list = int { 2, 1, 2, 4, 2 }
    for _, o in ipairs { {}, { padding_idx = 1 }, { scale_grad_by_freq = true, padding_idx = 4 },
      { sparse = true } } do
      local w, dy, v = randn(4, 3), randn(5, 3), randn(4, 3)
      -- g = A dy, so that d <v, g> / d dy = A' v and <dy, A' v> = <A dy, v>
      local outer <close> = lt.tape()
      outer:watch(dy)
      local g = gradient_of(function(x) return lt.embedding(list, x, o) end, w, dy)
      assert.is_false(g.is_sparse)
      local inner = (g * v):sum()
      local back = outer:gradient(inner, dy)
      near(inner, (back * dy):sum(), 1e-12)
      if o.padding_idx == 1 then assert.same({ 0, 0, 0 }, back[2]:totable()) end
    end
  end)

  it("goes through vmap, each sample with its own counts, and through jvp", function()
    local w, index = randn(6, 3), int { { 2, 3, 3 }, { 1, 1, 6 } }
    for _, o in ipairs { {}, { padding_idx = 3 }, { scale_grad_by_freq = true }, { sparse = true } } do
      local function gradient(i)
        return (gradient_of(function(x) return lt.embedding(i, x, o) end, w, nil):to_dense())
      end
      local each = lt.vmap(gradient)(index)
      near(gradient(index[1]), each[1])
      near(gradient(index[2]), each[2])
      local whole = gradient_of(function(x)
        return lt.vmap(function(i) return lt.embedding(i, x, o) end)(index)
      end, w)
      near(each:sum(1), whole:to_dense())
      local v = randn(6, 3)
      local y, dy = lt.jvp(function(x) return lt.embedding(index, x, o) end, { w }, { v })
      same_bits(lt.embedding(index, w), y)
      same_bits(lt.embedding(index, v), dy)
    end
    local function largest(i) return lt.embedding_bag(i:unsqueeze(1), w, { mode = "max" }):squeeze(1) end
    same_bits(lt.embedding_bag(index, w, { mode = "max" }), lt.vmap(largest)(index))
  end)

  it("refuses rows that are not there", function()
    local w = randn(4, 3)
    refuses("embedding: index 5 at element 2 is outside 1..4", lt.embedding, int { 1, 5 }, w)
    refuses("embedding: index 0 at element 1 is outside 1..4", lt.embedding, int { 0 }, w)
    refuses("weight must have two dimensions, got 3", lt.embedding, int { 1 }, randn(3))
    refuses("padding_idx 5 is outside 1..4", lt.embedding, int { 1 }, w, { padding_idx = 5 })
    refuses("padding_idx -5 is outside 1..4", lt.embedding, int { 1 }, w, { padding_idx = -5 })
    refuses("scale_grad_by_freq is not for sparse", lt.embedding, int { 1 }, w,
      { sparse = true, scale_grad_by_freq = true })
    refuses("one too many", lt.embedding, lt.ones({ 1, 1, 1, 1, 1, 1, 1, 1 }, { dtype = "int64" }), w)
  end)

  it("gives the same bits for any number of threads", function()
    local threads = lt.num_threads()
    local index = lt.randint(1, 200, { 3000 })
    index[{ { 1, 1000 } }] = 7 -- one word is most of the text
    local w, dy = lt.randn(200, 99), lt.randn(3000, 99)
    local results = {}
    for k, n in ipairs { 1, 2, 3 } do
      lt.set_num_threads(n)
      local function f(x) return lt.embedding(index, x) end
      results[k] = { f(w), gradient_of(f, w, dy) }
    end
    lt.set_num_threads(threads)
    for k = 2, 3 do
      same_bits(results[1][1], results[k][1])
      same_bits(results[1][2], results[k][2])
    end
  end)
end)

describe("embedding_bag", function()
  local weight = randn(6, 3)
  local flat = { 2, 5, 2, 6, 1, 1, 3, 5, 5 }
  local cases = {
    { index = { { 1, 4, 4 }, { 6, 2, 5 } } },
    { index = { { 1, 4, 4 }, { 6, 6, 6 } }, padding = 6 },
    { index = flat, offsets = { 1, 4, 4, 6 } },
    { index = flat, offsets = { 1, 4, 4, 6, 10 }, padding = 5 },
    { index = flat, offsets = { 1, 4, 4, 6, 10 }, include_last = true },
  }

  for number, case in ipairs(cases) do
    for _, mode in ipairs { "mean", "sum", "max" } do
      it(("of case %d is the %s of plain loops, as its gradient"):format(number, mode), function()
        local index = int(case.index)
        local offsets = case.offsets and int(case.offsets)
        local o = {
          mode = mode, padding_idx = case.padding, include_last_offset = case.include_last or false,
        }
        local bags = bags_of(case.index, case.offsets, case.padding, case.include_last)
        local function f(x) return lt.embedding_bag(index, x, offsets, nil, o) end
        local function reference(x) return f64(bag_value(bags, x:totable(), 3, mode)) end
        near(reference(weight), f(weight))
        local dy = randn(#bags, 3)
        local g = gradient_of(f, weight, dy)
        local direction, step = randn(6, 3), 2 ^ -17
        local function along(h) return (reference(weight + direction * h) * dy):sum():item() end
        local expected = (along(step) - along(-step)) / (2 * step)
        assert.near(expected, (g * direction):sum():item(), 1e-7)
        o.sparse = true
        local sparse = gradient_of(f, weight, dy)
        assert.is_true(sparse.is_sparse)
        near(g, sparse:to_dense())
      end)
    end
  end

  it("weighs the rows of a sum", function()
    local scale = randn(9)
    local bags = bags_of(flat, { 1, 4, 4, 6 })
    local expected = f64(bag_value(bags, weight:totable(), 3, "sum", scale:totable()))
    near(expected, lt.embedding_bag(int(flat), weight, int { 1, 4, 4, 6 }, scale, { mode = "sum" }))
    local index = int(flat):reshape(3, 3)
    near(f64(bag_value(bags_of(index:totable()), weight:totable(), 3, "sum", scale:totable())),
      lt.embedding_bag(index, weight, nil, scale:reshape(3, 3), { mode = "sum" }))
  end)

  it("takes nothing at all", function()
    local none = lt.zeros({ 0 }, { dtype = "int64" })
    for _, mode in ipairs { "mean", "sum", "max" } do
      assert.same({ { 0, 0, 0 }, { 0, 0, 0 } },
        lt.embedding_bag(none, weight, int { 1, 1 }, nil, { mode = mode }):totable())
      assert.same({ 0, 3 }, lt.embedding_bag(none:reshape(0, 2), weight, { mode = mode }).shape)
      assert.same({ 2, 3 }, lt.embedding_bag(none:reshape(2, 0), weight, { mode = mode }).shape)
      assert.same({ 0, 3 }, lt.embedding_bag(none, weight, none, nil, { mode = mode }).shape)
    end
  end)

  it("refuses what is no list of bags", function()
    local bag = lt.embedding_bag
    refuses("embedding_bag: index 7 at element 2 is outside 1..6", bag, int { { 1, 7 } }, weight)
    refuses("embedding_bag: offsets must begin with 1, got 2", bag, int { 1 }, weight, int { 2 })
    refuses("offset 1 at element 3 is outside 2..4", bag, int { 1, 2, 3 }, weight, int { 1, 2, 1 })
    refuses("offset 5 at element 2 is outside 1..4", bag, int { 1, 2, 3 }, weight, int { 1, 5 })
    refuses("leave out the end", bag, int { 1, 2, 3 }, weight, int { 1, 3 }, nil,
      { include_last_offset = true })
    refuses("leave out the end", bag, int { 1 }, weight, lt.zeros({ 0 }, { dtype = "int64" }))
    refuses("two dimensions", bag, int { 1 }, weight)
    refuses("one dimension where", bag, int { { 1 } }, weight, int { 1 })
    refuses("are for mode sum", bag, int { { 1 } }, weight, nil, randn(1, 1))
    refuses("per_sample_weights is 2, index 1x1", bag, int { { 1 } }, weight, nil, randn(2),
      { mode = "sum" })
  end)
end)

-- ---- Sparse gradients ----------------------------------------------------------------------------

local function sparse_embedding(list, w, padding)
  return lt.embedding(int(list), w, { sparse = true, padding_idx = padding })
end

---A sparse gradient of a new variable: rows of `list`, values of dy.
local function sparse(list, rows, dy)
  local w = lt.variable(lt.zeros({ rows, dy.shape[2] }, { dtype = dy.dtype }))
  return (gradient_of(function() return sparse_embedding(list, w) end, w, dy))
end

describe("a sparse gradient", function()
  it("has the shape of the weight, and only some rows", function()
    local dy = f64 { { 1, 2 }, { 3, 4 }, { 5, 6 }, { 7, 8 } }
    local g = sparse({ 5, 2, 5, 1 }, 100, dy)
    assert.is_true(g.is_sparse)
    assert.is_false(dy.is_sparse)
    assert.same({ 100, 2 }, g.shape)
    assert.same({ "float64", 2, 200, 100 }, { g.dtype, g.ndim, g:numel(), #g })
    assert.equal("[sparse float64 100x2, 4 rows]", tostring(g))
    assert.same({ 5, 2, 5, 1 }, g:indices():totable())
    same_bits(dy, g:values())
    local c = g:coalesce()
    assert.same({ 1, 2, 5 }, c:indices():totable())
    assert.same({ { 7, 8 }, { 3, 4 }, { 6, 8 } }, c:values():totable())
    local dense = g:to_dense()
    assert.is_false(dense.is_sparse)
    same_bits(dense, c:to_dense())
    assert.equal(dense, dense:to_dense())
    assert.same({ 6, 8 }, dense[5]:totable())
    assert.equal(dy:sum():item(), dense:sum():item())
  end)

  it("leaves the padding out, and may be empty", function()
    local w = lt.variable(randn(4, 2))
    local g = gradient_of(function() return sparse_embedding({ 2, 3, 2 }, w, 2) end, w, randn(3, 2))
    assert.same({ 3 }, g:indices():totable())
    g = gradient_of(function() return sparse_embedding({ 2, 2 }, w, 2) end, w, randn(2, 2))
    assert.equal("[sparse float64 4x2, 0 rows]", tostring(g))
    assert.equal(0, g:to_dense():abs():sum():item())
    assert.equal("[sparse float64 4x2, 0 rows]", tostring(g:coalesce()))
  end)

  it("is memory of its own", function()
    local w, dy, index = lt.variable(randn(4, 2)), randn(2, 2), int { 2, 3 }
    local g = gradient_of(function() return lt.embedding(index, w, { sparse = true }) end, w, dy)
    local before = g:values():clone()
    dy:assign(0)
    index:assign(1)
    g:indices():assign(9)
    same_bits(before, g:values())
    assert.same({ 2, 3 }, g:indices():totable())
    g:values():assign(1)
    assert.same({ 0, 1, 1, 0 }, g:to_dense():totable() and g:to_dense()[{ {}, 1 }]:totable())
    local tape = lt.tape()
    local gs = tape:gradient(sparse_embedding({ 1 }, w):sum(), { w, w })
    gs[1]:values():assign(5)
    assert.same({ { 1, 1 } }, gs[2]:values():totable())
  end)

  it("adds to others at the weight, dense or sparse", function()
    local w = lt.variable(randn(5, 2))
    local function total(option)
      return (under(function(tape)
        local o = { sparse = option }
        local l = (lt.embedding(int { 1, 4 }, w, o) ^ 2):sum() + (lt.embedding(int { 4 }, w, o) ^ 3):sum()
        return (tape:gradient(l, w))
      end))
    end
    local g = total(true)
    assert.equal("[sparse float64 5x2, 3 rows]", tostring(g))
    near(total(false), g:to_dense())
    local mixed = under(function(tape)
      local l = (sparse_embedding({ 1, 4 }, w) ^ 2):sum() + (w ^ 2):sum()
      return (tape:gradient(l, w))
    end)
    assert.is_false(mixed.is_sparse)
    near(w * 2 + gradient_of(function() return lt.embedding(int { 1, 4 }, w) ^ 2 end, w), mixed)
  end)

  it("is dense where it has to go on", function()
    local w = lt.variable(randn(5, 2))
    local gs, v = under(function(tape)
      local v = w * 3
      return tape:gradient((sparse_embedding({ 2, 2, 5 }, v) ^ 2):sum(), { w, v }), v
    end)
    assert.is_false(gs[1].is_sparse)
    assert.is_true(gs[2].is_sparse)
    near(gs[1], gs[2]:to_dense() * 3)
    near(v * 2 * f64 { { 0 }, { 2 }, { 0 }, { 0 }, { 1 } }, gs[2]:to_dense())
    local custom = lt.custom_gradient(function(x)
      return x:clone(), function(dy)
        assert.is_false(dy.is_sparse)
        return dy
      end
    end)
    local g = gradient_of(function() return sparse_embedding({ 2 }, custom(w)) end, w)
    assert.same({ 0, 1, 0, 0, 0 }, g[{ {}, 1 }]:totable())
    -- a rule may give one, and it may begin a walk
    local lookup_by_hand = lt.custom_gradient(function(x)
      return x:sum(), function() return sparse({ 2 }, 5, f64 { { 1, 2 } }) end
    end)
    g = gradient_of(lookup_by_hand, w)
    assert.equal("[sparse float64 5x2, 1 rows]", tostring(g))
    local seeded = under(function(tape)
      return (tape:gradient(w * 2, w, { output_gradients = g }))
    end)
    near(g:to_dense() * 2, seeded)
  end)

  it("is dense while a tape records the walk", function()
    local w = lt.variable(randn(5, 2))
    local outer <close> = lt.tape()
    local g = under(function(tape) return (tape:gradient((sparse_embedding({ 3, 3 }, w) ^ 3):sum(), w)) end)
    assert.is_false(g.is_sparse)
    local second = outer:gradient(g:sum(), w)
    assert.is_true(second.is_sparse) -- no tape records this one
    near(w[3] * 12, second:to_dense()[3])
    local persistent <close> = lt.tape { persistent = true }
    local l = sparse_embedding({ 3 }, w):sum()
    assert.is_false(persistent:gradient(l, w).is_sparse)
    persistent:stop()
    assert.is_true(persistent:gradient(l, w).is_sparse)
    -- forward mode records it too
    local function f(x) return (sparse_embedding({ 3, 3 }, x) ^ 3):sum() end
    local _, dg = lt.jvp(lt.grad(f), { w }, { lt.ones_like(w) })
    near(w[3] * 12, dg[3])
  end)

  it("comes out of a checkpoint", function()
    local w = lt.variable(randn(5, 2))
    local function f(x) return (sparse_embedding({ 3, 1, 3 }, x) ^ 3):sum() end
    local g = gradient_of(function(x) return lt.checkpoint(f, x) end, w)
    near(gradient_of(f, w):to_dense(), g:to_dense())
  end)

  it("is refused by all that reads elements, and by every op", function()
    local g = sparse({ 1, 3, 1 }, 3, randn(3, 3))
    local x, v = randn(3, 3), lt.variable(randn(3, 3))
    local message = "is a sparse gradient (3 rows of 3x3); g:to_dense() makes it an ordinary tensor"
    local doors = {
      function() return g:item() end, function() return g:totable() end,
      function() return g:get(1, 1) end, function() return g:set(1, 1, 0) end,
      function() return g[1] end, function() return g[{ { 1, 2 } }] end,
      function() return g[{ {}, 1 }] end, function() return g[x:gt(0)] end,
      function() g[1] = 0 end, function() g[{ {} }] = x end, function() g[x:gt(0)] = 0 end,
      function() x[1] = g end, function() x[{ {} }] = g end, function() x[x:gt(0)] = g end,
      function() v:assign(g) end, function() v:assign_add(g) end, function() v:assign_sub(g) end,
      function() g:assign(1) end, function() g:assign_add(x) end,
      function() return lt.tensor(g) end, function() return lt.variable(g) end,
      function() return g + 1 end, function() return 1 - g end, function() return -g end,
      function() return g * g end, function() return lt.cat { x, g } end, function() return g:sum() end,
      function() return g:clone() end, function() return g:to "float32" end,
      function() return lt.zeros_like(g) end, function() return lt.allclose(g, x) end,
      function() return lt.custom_gradient(function() return g, print end)(x) end,
      function() optim.SGD():apply_gradients({ x }, { g }) end,
    }
    for k, door in ipairs(doors) do
      local ok, text = pcall(door)
      assert(not ok, "door " .. k .. " is open")
      assert(text:find(message, 1, true), text)
    end
    for name, op in pairs(lt.ops) do
      if not op.internal and op.inputs[1] and not op.inputs[1].optional and op.option_at ~= 1 then
        local arguments = {}
        for i = 1, #op.inputs do arguments[i] = g end
        if op.inputs[#op.inputs].list then arguments[#op.inputs] = { g } end
        local ok, text = pcall(lt[name], table.unpack(arguments))
        assert(not ok, name .. " takes a sparse gradient")
        assert(text:find("sparse gradient", 1, true), text)
      end
    end
    assert.equal(3, v:numel() / 3)
    for _, name in ipairs { "indices", "values", "coalesce" } do
      refuses(name .. ": x must be a sparse gradient, got a float64 3x3 tensor", x[name], x)
      refuses(name .. ": x must be a tensor, got a number", x[name], 1)
    end
  end)

  it("is clipped as a dense one", function()
    local w = lt.variable(randn(6, 3))
    local g = sparse({ 2, 5, 2 }, 6, randn(3, 3) * 3)
    local dense, other = g:to_dense(), randn(2, 2)
    local function check(expected, got)
      assert.is_true(got.is_sparse)
      near(expected, got:to_dense())
    end
    check(optim.clip_by_value(dense, 0.5), optim.clip_by_value(g, 0.5))
    refuses("leave no zeros", optim.clip_by_value, g, 0.5, 1)
    check(optim.clip_by_norm(dense, 0.5), optim.clip_by_norm(g, 0.5))
    check(optim.clip_by_norm(dense, 0.5, { dim = 2 }), optim.clip_by_norm(g, 0.5, { dim = 2 }))
    check(optim.clip_by_norm(dense, 0.5, { dim = 1 }), optim.clip_by_norm(g, 0.5, { dim = 1 }))
    near(optim.global_norm { dense, other }, optim.global_norm { g, other })
    for _, p in ipairs { 1, 2, math.huge } do
      local a, b = optim.clip_grad_norm({ dense, other }, 0.3, { norm_type = p }),
        optim.clip_grad_norm({ g, other }, 0.3, { norm_type = p })
      check(a[1], b[1])
      near(a[2], b[2])
    end
    local a, b = optim.clip_by_global_norm({ dense, other }, 1), optim.clip_by_global_norm({ g, other }, 1)
    check(a[1], b[1])
    near(a[2], b[2])
    local empty = gradient_of(function() return sparse_embedding({ 2 }, w, 2) end, w)
    assert.equal(0, optim.global_norm({ empty }):item())
    local _, norm = optim.clip_grad_norm({ empty }, 1, { norm_type = math.huge })
    assert.equal(0, norm:item())
    assert.equal(0, optim.clip_by_norm(empty, 1):to_dense():abs():sum():item())
  end)

  it("holds no more than its rows", function()
    local w = lt.variable(lt.zeros(5000, 16))
    collectgarbage()
    collectgarbage()
    local live = lt.memory().live
    local g = gradient_of(function() return sparse_embedding({ 5, 4700 }, w) end, w)
    collectgarbage()
    assert.is_true(lt.memory().live - live < 4096)
    assert.equal(2, #g:indices())
  end)
end)

-- ---- Optimizers ----------------------------------------------------------------------------------

local variants = {
  { "SGD", {} }, { "SGD", { momentum = 0.9 } }, { "SGD", { momentum = 0.9, dampening = 0.1 } },
  { "SGD", { momentum = 0.9, nesterov = true, weight_decay = 0.1 } },
  { "SGD", { momentum = 0.9, keras = true } },
  { "Adam", {} }, { "Adam", { amsgrad = true, weight_decay = 0.1 } }, { "Adam", { keras = true } },
  { "AdamW", { maximize = true } }, { "Adam", { clip_norm = 0.5 } }, { "SGD", { clip_value = 0.3 } },
  { "Adam", { global_clip_norm = 0.7 } },
}

describe("a step with a sparse gradient", function()
  for number, variant in ipairs(variants) do
    local name, options = variant[1], variant[2]
    local function new() -- the constructor's table may not be shared
      local o = {}
      for key, value in pairs(options) do o[key] = value end
      return optim[name](o)
    end

    it(("of %s (%d) on all rows is the dense step"):format(name, number), function()
      for _, dtype in ipairs { "float64", "float32" } do
        for _, d in ipairs { 1, 7, 40 } do
          local list = {}
          for k = 1, 500 do list[k] = 1 + (k * 7) % 130 end
          local start = lt.randn({ 130, d }, { dtype = dtype })
          local a, b = lt.variable(start), lt.variable(start)
          local to_a, to_b = new(), new()
          for _ = 1, 5 do
            local dy = lt.randn({ 500, d }, { dtype = dtype })
            local sparse_gradient = gradient_of(function() return sparse_embedding(list, a) end, a, dy)
            assert.is_true(sparse_gradient.is_sparse)
            to_a:apply_gradients({ sparse_gradient }, { a })
            to_b:apply_gradients({ sparse_gradient:to_dense() }, { b })
          end
          same_bits(b, a)
        end
      end
    end)

    it(("of %s (%d) leaves other rows and their states alone"):format(name, number), function()
      local w = lt.variable(randn(6, 3))
      local opt = new()
      local function step(list)
        local before, states = w:clone(), opt:state_dict().state[1] or {}
        opt:apply_gradients({ sparse(list, 6, randn(#list, 3)) }, { w })
        local touched = {}
        for _, i in ipairs(list) do touched[i] = true end
        local after = opt:state_dict().state[1]
        for i = 1, 6 do
          local moved = (w[i] - before[i]):abs():max():item() > 0
          assert.equal(touched[i] or false, moved)
          for key, state in pairs(after) do
            if key ~= "step" and states[key] and not touched[i] then same_bits(states[key][i], state[i]) end
          end
        end
      end
      step { 2, 5, 2 }
      step { 1, 5 }
      step { 6 }
    end)
  end

  it("is the formula on a row, with the variable's own count of steps", function()
    -- p, m, v of row 2, which is touched in steps 1 and 3 only
    local w, opt = lt.variable(f64 { { 1 }, { 2 }, { 3 } }), optim.Adam { lr = 0.1 }
    local p, m, v = 2.0, 0.0, 0.0
    for t, g in ipairs { 0.5, false, -1.5 } do
      opt:apply_gradients({ sparse({ g and 2 or 1 }, 3, f64 { { g or 7 } }) }, { w })
      if g then
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g * g
        p = p - 0.1 * (m / (1 - 0.9 ^ t)) / (math.sqrt(v / (1 - 0.999 ^ t)) + 1e-8)
      end
      assert.near(p, w:get(2, 1), 1e-14)
    end
    assert.equal(3, w:get(3, 1))
  end)

  it("takes dense ones before and after, and beside it", function()
    local w, other = lt.variable(randn(4, 2)), lt.variable(randn(3))
    local a, b = lt.variable(w), lt.variable(other)
    local one, two = optim.Adam {}, optim.Adam {}
    for t = 1, 6 do
      local dense, g = randn(4, 2), sparse({ 1, 2, 3, 4, 4 }, 4, randn(5, 2))
      local side = randn(3)
      one:apply_gradients({ t % 2 == 0 and g or dense, side }, { w, other })
      two:apply_gradients({ t % 2 == 0 and g:to_dense() or dense, side }, { a, b })
    end
    same_bits(a, w)
    same_bits(b, other)
  end)

  it("refuses NaN, other shapes and other types before anything moves", function()
    local w, opt = lt.variable(randn(4, 2)), optim.SGD {}
    local before = w:clone()
    local bad = randn(2, 2)
    bad[2] = 0 / 0
    refuses("(2 of 8 elements)", opt.apply_gradients, opt, { sparse({ 1, 4 }, 4, bad) }, { w })
    refuses("[order]", opt.apply_gradients, opt, { sparse({ 1, 4 }, 5, randn(2, 2)) }, { w })
    refuses("is float32", opt.apply_gradients, opt, { sparse({ 1 }, 4, lt.randn(1, 2)) }, { w })
    same_bits(before, w)
    local skipping = optim.SGD { on_nonfinite = "skip" }
    assert.is_false(skipping:apply_gradients({ sparse({ 1, 4 }, 4, bad) }, { w }))
    same_bits(before, w)
  end)

  it("with no rows moves nothing, but counts", function()
    local w, opt = lt.variable(randn(4, 2)), optim.Adam { lr = 0.1 }
    local before = w:clone()
    local g = gradient_of(function() return sparse_embedding({ 2 }, w, 2) end, w)
    assert.is_true(opt:apply_gradients({ g }, { w }))
    same_bits(before, w)
    assert.equal(1, opt.step)
  end)

  it("is told by minimize's report as a dense one's", function()
    local start = randn(5, 3)
    local function run(option)
      local w, opt = lt.variable(start, { name = "table" }), optim.SGD { lr = 0.1 }
      local _, report = opt:minimize(function()
        return (lt.embedding(int { 1, 4, 4 }, w, { sparse = option }) ^ 2):sum()
      end)
      return w, report
    end
    local a, dense = run(false)
    local b, rows = run(true)
    near(a, b)
    assert.equal("ok", rows.table.status)
    assert.near(dense.table.gradient_norm, rows.table.gradient_norm, 1e-12)
    assert.near(dense.table.update_ratio, rows.table.update_ratio, 1e-12)
    assert.is_true(rows.table.update_ratio > 0)
  end)

  it("costs what its rows cost, not what the table would", function()
    local program = os.getenv "LUATAPE_PROGRAM" or (os.getenv "LUATAPE_BUILD" or "build") .. "/luatape"
    local file = os.tmpname()
    local f <close> = assert(io.open(file, "w"))
    f:write [[
      local lt = require "luatape"
      local index = lt.tensor({ 3, 150000, 3 }, { dtype = "int64" })
      for _, name in ipairs { "SGD", "Adam", "AdamW" } do
        local w, opt = lt.variable(lt.zeros(200000, 16)), lt.optim[name] {}
        local bytes = w:numel() * 4
        local function step()
          opt:minimize(function()
            return (lt.embedding(index, w, { sparse = true }) - 1):square():sum()
          end, w)
        end
        step() -- makes the states
        collectgarbage()
        collectgarbage()
        -- so much that another thing as large as the table would show
        local room = lt.memory().peak - lt.memory().live
        local filler = lt.zeros({ math.max(0, room - bytes // 4) }, { dtype = "uint8" })
        local peak = lt.memory().peak
        for _ = 1, 5 do step() end
        print(lt.memory().peak - peak < bytes // 2, w:get(3, 1) > 0, w:get(4, 1), filler.dtype)
      end
    ]]
    f:flush()
    local pipe = io.popen("'" .. program .. "' " .. file .. " 2>&1")
    assert.equal(("true\ttrue\t0.0\tuint8\n"):rep(3), pipe:read "a")
    assert.is_true(pipe:close())
    os.remove(file)
  end)
end)
