-- The shape ops against plain Lua loops: varied shapes, layouts, options and types, empty and 0-d
-- tensors, threads, gradients where elements meet, and what bad arguments are told.
local lt = require "luatape"
local samples = require "spec.samples"

local random = samples.random(20250307)
local generators = samples.generators(random)

local function pick(list) return list[random(1, #list)] end
local function flat(t) return t:numel() > 0 and t:reshape { -1 }:totable() or {} end
local function shape_of(t) return { table.unpack(t.shape) } end

local function count(shape)
  local n = 1
  for _, size in ipairs(shape) do n = n * size end
  return n
end

---The coordinates, from 1, of element number i (from 1) of a shape.
local function coordinates(shape, i)
  local c, rest = {}, i - 1
  for d = #shape, 1, -1 do
    c[d] = rest % shape[d] + 1
    rest = rest // shape[d]
  end
  return c
end

local function offset(shape, c)
  local i = 0
  for d = 1, #shape do i = i * shape[d] + c[d] - 1 end
  return i + 1
end

local function same(got, expected)
  return got == expected or (got ~= got and expected ~= expected)
    or (math.type(got) and math.abs(got - expected) <= 1e-12 * math.max(1, math.abs(expected)))
end

---Is y of that shape, with element f(coordinates) everywhere?
local function assert_elements(what, y, shape, f)
  assert.same(shape, shape_of(y), what)
  local data = flat(y)
  for i = 1, count(shape) do
    local expected = f(coordinates(shape, i))
    if not same(data[i], expected) then
      error(("%s: element %d is %s, not %s"):format(what, i, tostring(data[i]), tostring(expected)), 2)
    end
  end
end

---The same tensor, stored in another way.
local function relaid(x)
  local way = random(1, 4)
  if way == 1 and x.ndim >= 2 then return x:transpose(-2, -1):contiguous():transpose(-2, -1) end
  if way == 2 and x.ndim >= 1 and x.shape[1] > 0 then
    local all = {}
    for d = 1, x.ndim do all[d] = {} end
    all[1] = { 1, -1, 2 }
    local larger = lt.stack({ x, x * 0 }, { dim = 2 }):flatten(1, 2)
    return larger[all]
  end
  return x
end

local function any_shape(least, most)
  local shape = {}
  for d = 1, random(least, 4) do shape[d] = random(1, most) end
  if #shape > 0 and random(1, 6) == 1 then shape[random(1, #shape)] = random(18, 30) end
  return shape
end

local function any_tensor(least)
  return relaid(generators.normal(table.unpack(any_shape(least or 1, 5))))
end

---Looks an element up by its coordinates.
local function reader(x)
  local shape, data = shape_of(x), flat(x)
  return function(c) return data[offset(shape, c)] end
end

local function dim_of(x) return random(1, math.max(x.ndim, 1)) * (random(0, 1) * 2 - 1) end
local function positive(dim, ndim) return dim < 0 and dim + ndim + 1 or dim end

local function fails(message, f, ...)
  local ok, text = pcall(f, ...)
  assert(not ok, "was accepted: " .. message)
  assert(text:find(message, 1, true), ("expected '%s' in: %s"):format(message, text))
end

local function gradient(f, ...)
  local tape <close> = lt.tape()
  local sources = { ... }
  for _, x in ipairs(sources) do tape:watch(x) end
  return table.unpack(tape:gradient(f(...), sources, { unconnected_gradients = "zero" }))
end

-- ---- Places -------------------------------------------------------------------------------------

describe("elements in other places", function()
  it("flip turns round", function()
    for _ = 1, 60 do
      local x, dims, turned = any_tensor(), {}, {}
      local read = reader(x)
      for d = 1, x.ndim do
        if random(0, 1) == 1 then
          dims[#dims + 1] = random(0, 1) == 1 and d or d - x.ndim - 1
          turned[d] = true
        end
      end
      assert_elements("flip", x:flip { dims = dims }, shape_of(x), function(c)
        for d in pairs(turned) do c[d] = x.shape[d] + 1 - c[d] end
        return read(c)
      end)
    end
    assert.same({ 3, 2, 1 }, lt.tensor({ 1, 2, 3 }):flip(1):totable())
    assert.equal(7, lt.tensor(7):flip({ dims = { 1 } }):item())
    assert.same({ 2, 0 }, shape_of(lt.zeros({ 2, 0 }):flip(1, 2)))
    fails("flip: dim 1 comes twice", lt.flip, lt.ones(2, 2), 1, -2)
  end)

  it("roll goes round", function()
    for _ = 1, 60 do
      local x, shifts, dims, by = any_tensor(), {}, {}, {}
      local read = reader(x)
      for d = 1, x.ndim do by[d] = 0 end
      for i = 1, random(1, 3) do
        dims[i], shifts[i] = dim_of(x), random(-9, 9)
        local d = positive(dims[i], x.ndim)
        by[d] = by[d] + shifts[i]
      end
      assert_elements("roll", x:roll(shifts, dims), shape_of(x), function(c)
        for d, n in ipairs(x.shape) do c[d] = (c[d] - 1 - by[d]) % n + 1 end
        return read(c)
      end)
      local data, shift = flat(x), random(-20, 20)
      assert_elements("roll of all", x:roll(shift), shape_of(x), function(c)
        return data[(offset(x.shape, c) - 1 - shift) % #data + 1]
      end)
    end
    assert.same({ 0 }, shape_of(lt.zeros({ 0 }):roll(3)))
    assert.equal(7, lt.tensor(7):roll(2):item())
    assert.same({ 2, 3, 1 }, lt.tensor({ 1, 2, 3 }):roll(math.mininteger, 1)
      :roll(math.mininteger % 3 == 1 and 1 or 0, 1):totable())
    fails("roll: 2 shifts for 1 dims", lt.roll, lt.ones(2, 2), { 1, 2 }, { 1 })
    fails("roll: 2 shifts for 1 dims", lt.roll, lt.ones(2, 2), { 1, 2 })
  end)

  it("rot90 turns in a plane", function()
    local x = lt.tensor { { 1, 2, 3 }, { 4, 5, 6 } }
    assert.same({ { 3, 6 }, { 2, 5 }, { 1, 4 } }, x:rot90():totable())
    assert.same({ { 6, 5, 4 }, { 3, 2, 1 } }, x:rot90(2):totable())
    assert.same({ { 4, 1 }, { 5, 2 }, { 6, 3 } }, x:rot90(-1):totable())
    assert.same({ { 4, 1 }, { 5, 2 }, { 6, 3 } }, x:rot90(1, { 2, 1 }):totable())
    local y = x:rot90(4)
    y[1] = 0
    assert.equal(1, x[1][1]:item()) -- a copy
    fails("two dimensions or more", lt.rot90, lt.ones(3))
    fails("dims must be two dimensions", lt.rot90, x, { dims = { 1 } })
  end)

  it("tile and repeat_interleave repeat", function()
    for _ = 1, 60 do
      local x, times, longer = any_tensor(0), {}, {}
      local read = reader(x)
      local n = random(1, 4)
      for i = 1, n do times[i] = random(0, 9) == 0 and 0 or random(1, 3) end
      local ndim = math.max(n, x.ndim)
      for d = 1, ndim do
        local own, by = x.shape[d - ndim + x.ndim], times[d - ndim + n]
        longer[d] = (d > ndim - x.ndim and own or 1) * (d > ndim - n and by or 1)
      end
      assert_elements("tile", x:tile(times), longer, function(c)
        local own = {}
        for d, size in ipairs(x.shape) do own[d] = (c[d + ndim - x.ndim] - 1) % size + 1 end
        return read(own)
      end)
    end
    assert.same({ 1, 2, 1, 2 }, lt.tensor({ 1, 2 }):tile(2):totable())
    assert.same({ 2, 3 }, shape_of(lt.tensor(1):tile(2, 3)))
    local deep = generators.normal(1, 2, 1, 2, 1, 2, 1, 2)
    assert.same({ 2, 4, 2, 4, 2, 4, 2, 4 }, shape_of(deep:tile(2, 2, 2, 2, 2, 2, 2, 2)))
    fails("tile: dim 1 cannot be repeated -1 times", lt.tile, lt.ones(2), -1)
    fails("tile: the shape", lt.tile, lt.ones(2), math.maxinteger)

    for _ = 1, 60 do
      local x = any_tensor()
      local dim, read = dim_of(x), reader(x)
      local d = positive(dim, x.ndim)
      local places, repeats, numbers = {}, random(0, 3), {}
      local shape = shape_of(x)
      for i = 1, shape[d] do
        numbers[i] = random(0, 3)
        for _ = 1, numbers[i] do places[#places + 1] = i end
      end
      shape[d] = shape[d] * repeats
      assert_elements("repeat_interleave", x:repeat_interleave(repeats, dim), shape, function(c)
        c[d] = (c[d] - 1) // repeats + 1
        return read(c)
      end)
      shape[d] = #places
      local each = lt.tensor(numbers, { dtype = pick { "int64", "int32" } })
      assert_elements("repeat_interleave by a tensor", x:repeat_interleave(each, dim), shape,
        function(c)
          c[d] = places[c[d]]
          return read(c)
        end)
    end
    local x = lt.tensor { { 1, 2 }, { 3, 4 } }
    assert.same({ 1, 1, 2, 2, 3, 3, 4, 4 }, x:repeat_interleave(2):totable())
    assert.same({ 1, 1, 2, 2, 3, 3, 4, 4 },
      x:repeat_interleave(lt.tensor({ 2 }, { dtype = "int64" })):totable())
    assert.same({ 7, 7 }, lt.tensor(7):repeat_interleave(2):totable())
    fails("given once", lt.repeat_interleave, x)
    fails("given once", lt.repeat_interleave, x, 2, { repeats = 2 })
    fails("repeats = -1", lt.repeat_interleave, x, -1)
    fails("must be integers", lt.repeat_interleave, x, 1.5)
    fails("must be integers", lt.repeat_interleave, x, lt.ones(2), 1)
    fails("must hold one number or 2", lt.repeat_interleave, x, lt.ones({ 3 }, { dtype = "int64" }), 1)
    fails("element 2 cannot be repeated -3 times", lt.repeat_interleave, x,
      lt.tensor({ 1, -3 }, { dtype = "int64" }), 1)
  end)

  it("pad adds at the ends, in every mode", function()
    local place = {}
    function place.constant(p, n) return p >= 1 and p <= n and p or nil end
    function place.reflect(p, n)
      if p < 1 then p = 2 - p end
      return p > n and 2 * n - p or p
    end
    function place.replicate(p, n) return math.max(1, math.min(p, n)) end
    for _ = 1, 200 do
      local x = any_tensor()
      local read, mode = reader(x), pick { "constant", "reflect", "replicate", "circular" }
      local pad, shape, left, cut = {}, shape_of(x), {}, {}
      for d = 1, x.ndim do left[d], cut[d] = 0, { 0, 0 } end
      for pair = 1, random(1, x.ndim) do
        local d = x.ndim + 1 - pair
        local n = shape[d]
        local most = mode == "reflect" and n - 1 or n
        local a, b = random(-n, most), random(-n, most)
        if mode == "circular" then -- what was cut does not come round
          local rest = n + math.min(a, 0) + math.min(b, 0)
          a, b = math.min(a, math.max(rest, 0)), math.min(b, math.max(rest, 0))
          if rest < 0 then a, b = 0, 0 end
        end
        if n + a + b < 0 then a, b = 0, 1 - (mode == "reflect" and 1 or 0) end
        if mode == "reflect" and (a >= n or b >= n) then a, b = 0, 0 end
        pad[2 * pair - 1], pad[2 * pair], left[d] = a, b, a
        cut[d] = { math.max(-a, 0), math.max(-b, 0) }
        shape[d] = n + a + b
      end
      local y = x:pad(pad, mode, -3)
      assert_elements("pad " .. mode .. " {" .. table.concat(pad, ",") .. "}", y, shape, function(c)
        for d, n in ipairs(x.shape) do
          local p = c[d] - left[d]
          if mode == "circular" then
            local rest = n - cut[d][1] - cut[d][2]
            p = (p - 1 - cut[d][1]) % rest + 1 + cut[d][1]
          else
            p = place[mode](p, n)
          end
          if not p then return -3 end
          c[d] = p
        end
        return read(c)
      end)
      -- the gradient, by counting: each element of x as often as it is shown
      local times, weights = {}, generators.normal(table.unpack(shape))
      if count(shape) > 0 then
        local places = lt.range(1, x:numel(), { dtype = "float64" }):reshape(x.shape):pad(pad, mode, 0)
        for i, p in ipairs(flat(places)) do times[p] = (times[p] or 0) + flat(weights)[i] end
        local dx = gradient(function(t) return (t:pad(pad, mode, 5) * weights):sum() end, x)
        assert_elements("gradient of pad", dx, shape_of(x), function(c)
          return times[offset(x.shape, c)] or 0
        end)
      end
    end
  end)

  it("pad takes every type, and says what is wrong", function()
    assert.same({ 9, 9, 1, 2 }, lt.tensor({ 1, 2 }, { dtype = "int32" }):pad({ 2, 0 }, { value = 9 }):totable())
    assert.same({ true, false }, lt.tensor({ true }):pad({ 0, 1 }):totable())
    assert.equal("uint8", lt.zeros({ 2 }, { dtype = "uint8" }):pad({ 0, 1 }).dtype)
    assert.same({ 0, 2, 5 }, shape_of(lt.zeros(0, 2, 3):pad({ 1, 1 }, "reflect")))
    assert.same({ 2 }, shape_of(lt.zeros({ 0 }):pad({ 1, 1 })))
    assert.same({}, shape_of(lt.tensor(3):pad({})))
    local x = lt.ones(2, 3)
    fails("pad: 1 numbers", lt.pad, x, 1)
    fails("pad: 6 numbers", lt.pad, x, { 1, 1, 1, 1, 1, 1 })
    fails("reflect needs fewer", lt.pad, x, { 3, 0 }, "reflect")
    fails("circular takes no more", lt.pad, x, { 4, 0 }, "circular")
    fails("nothing to repeat", lt.pad, lt.zeros(2, 0), { 1, 0 }, "replicate")
    fails("cannot change by -4 and 0", lt.pad, x, { -4, 0 })
    fails("cannot change by", lt.pad, x, { math.maxinteger, 1 })
    fails("value 1.5 does not fit", lt.pad, x:to "int64", { 1, 1 }, { value = 1.5 })
  end)
end)

-- ---- Views --------------------------------------------------------------------------------------

describe("other shapes", function()
  it("flatten, unflatten, movedim, broadcast_to", function()
    local x = generators.normal(2, 3, 4, 5)
    assert.same({ 120 }, shape_of(x:flatten()))
    assert.same({ 2, 12, 5 }, shape_of(x:flatten(2, 3)))
    assert.same({ 6, 4, 5 }, shape_of(x:flatten { end_dim = -3 }))
    assert.same({ 1 }, shape_of(lt.tensor(3):flatten()))
    assert.same({ 2, 0 }, shape_of(lt.zeros(2, 0, 3):flatten(2)))
    assert.same(flat(x), flat(x:flatten(2)))
    fails("flatten: start_dim 3 lies behind end_dim 2", lt.flatten, x, 3, 2)

    assert.same({ 2, 3, 2, 2, 5 }, shape_of(x:unflatten(3, { 2, -1 })))
    assert.same({ 0, 4 }, shape_of(lt.zeros({ 0 }):unflatten(1, { 0, 4 })))
    fails("unflatten: dim 3 of size 4 cannot become 3x-1", lt.unflatten, x, 3, { 3, -1 })
    fails("cannot become 5", lt.unflatten, x, 3, { 5 })
    fails("unflatten: 0 sizes", lt.unflatten, x, 3, {})
    fails("unflatten: dim 1 of size 0", lt.unflatten, lt.zeros({ 0 }), 1, { 0, -1 })

    assert.same({ 3, 4, 5, 2 }, shape_of(x:movedim(1, 4)))
    assert.same({ 5, 2, 3, 4 }, shape_of(x:movedim(-1, 1)))
    assert.same({ 4, 5, 2, 3 }, shape_of(x:movedim({ 1, 2 }, { 3, 4 })))
    assert.same({ 5, 3, 4, 2 }, shape_of(x:movedim({ 1, 4 }, { 4, 1 })))
    assert.same(flat(x:permute(3, 1, 2, 4)), flat(x:movedim(3, 1)))
    fails("movedim: 2 dims cannot go to 1 places", lt.movedim, x, { 1, 2 }, { 1 })
    fails("movedim: dim 1 comes twice", lt.movedim, x, { 1, 1 }, { 1, 2 })
    fails("movedim: destination is missing", lt.movedim, x, 1)

    assert.same({ { 1, 1 }, { 2, 2 } }, lt.tensor({ { 1 }, { 2 } }):broadcast_to(2, 2):totable())
    assert.same({ 4, 3, 0 }, shape_of(lt.zeros(3, 1):broadcast_to { 4, -1, 0 }))
    fails("broadcast_to: x (3) does not broadcast to 2x1", lt.broadcast_to, lt.ones(3), 2, 1)
    fails("does not broadcast to", lt.broadcast_to, lt.ones(1, 3), { 3 })
  end)

  it("are views where they can be", function()
    local x = lt.zeros(2, 3, 4)
    x:flatten(2)[1] = 1
    x:unflatten(3, { 2, 2 })[{ 1, 1, 1, 1 }] = 2
    x:movedim(3, 1)[{ 2, 1, 1 }] = 3
    assert.same({ 2, 3, 1, 1 }, x[1][1]:totable())
  end)
end)

-- ---- By index -----------------------------------------------------------------------------------

---An index for x along d: no larger elsewhere, of either type.
local function any_index(x, d, most)
  local shape = shape_of(x)
  for e, n in ipairs(shape) do shape[e] = e == d and random(0, most or 6) or random(1, n) end
  local index = relaid(generators.integers(1, x.shape[d] or 1, table.unpack(shape)))
  return random(0, 1) == 1 and index or index:to "int32"
end

describe("elements by index", function()
  it("gather and take_along_axis take", function()
    for _ = 1, 120 do
      local x = any_tensor()
      if random(1, 3) == 1 then x = x:to(pick { "float32", "int64", "int32", "uint8" }) end
      local dim, read = dim_of(x), reader(x)
      local d = positive(dim, x.ndim)
      local index = any_index(x, d)
      local at = reader(index)
      local function expected(c)
        local own = { table.unpack(c) }
        own[d] = at(c)
        return read(own)
      end
      assert_elements("gather", x:gather(dim, index), shape_of(index), expected)
      assert_elements("gather", lt.gather(x, index, { dim = dim }), shape_of(index), expected)
    end
    assert.equal(7, lt.tensor(7):gather(1, lt.tensor(1, { dtype = "int64" })):item())

    local x, index = generators.normal(3, 1, 4), generators.integers(1, 4, 1, 5, 2)
    local read, at = reader(x), reader(index)
    assert_elements("take_along_axis", x:take_along_axis(index, 3), { 3, 5, 2 }, function(c)
      return read { c[1], 1, at { 1, c[2], c[3] } }
    end)
    local y = generators.normal(4, 3):transpose()
    local places = generators.integers(1, 12, 2, 5)
    local data, all = flat(y), flat(places)
    assert_elements("take_along_axis of all", y:take_along_axis(places), { 10 }, function(c)
      return data[all[c[1]]]
    end)
    assert.same(flat(y:sort(2)), flat(y:take_along_axis(y:argsort(2), { dim = 2 })))
    assert.same(flat(y:amax(1)), flat(y:take_along_axis(y:argmax { dim = 1, keepdim = true }, 1)))
  end)

  it("index out of bounds is an error that names value and range", function()
    local x = lt.ones(3, 4)
    local function index(v, n) return lt.full({ n or 1, 4 }, v, { dtype = "int64" }) end
    for _, v in ipairs { 0, 4, -1, 1 << 40 } do
      local text = ("index %d at element 1 is outside 1..3"):format(v)
      fails("gather: " .. text, lt.gather, x, 1, index(v))
      fails("take_along_axis: " .. text, lt.take_along_axis, x, index(v), 1)
      fails("scatter: " .. text, lt.scatter, x, 1, index(v), 2)
      fails("scatter_add: " .. text, lt.scatter_add, x, 1, index(v), lt.ones(1, 4))
      fails("scatter_reduce: " .. text, lt.scatter_reduce, x, 1, index(v), lt.ones(1, 4), "prod")
      fails("index_copy: " .. text, lt.index_copy, x, 1, index(v)[1][{ { 1, 1 } }], lt.ones(1, 4))
      fails("index_fill: " .. text, lt.index_fill, x, 1, index(v)[1], 2)
    end
    fails("is outside 1..12", lt.take_along_axis, x, index(13))
    fails("index (4) must have the dimensions of x (3x4)", lt.gather, x, 1, index(1)[1])
    fails("no larger but along dim 2", lt.gather, x, 2, index(1, 5))
    fails("take_along_axis: index (5x4) does not broadcast", lt.take_along_axis, x, index(1, 5), 2)
    fails("src (1x2) must have", lt.scatter_add, x, 1, index(1), lt.ones(1, 2))
    fails("one dtype", lt.scatter_add, x, 1, index(1), lt.ones({ 1, 4 }, { dtype = "float64" }))
    fails("either src or value", lt.scatter, x, 1, index(1))
    fails("not both", lt.scatter, x, 1, index(1), 2, { value = 1 })
    fails("value 0.5 does not fit", lt.scatter, x:to "int64", 1, index(1), 0.5)
    fails("must hold numbers", lt.scatter, x:to "bool", 1, index(1), 1, { reduce = "add" })
    fails("the mean is of floats", lt.scatter_reduce, x:to "int64", 1, index(1),
      lt.ones({ 1, 4 }, { dtype = "int64" }), "mean")
  end)

  it("scatter puts, adds and multiplies, in the order of index", function()
    local step = {
      none = function(_, v) return v end,
      add = function(y, v) return y + v end,
      multiply = function(y, v) return y * v end,
    }
    for _ = 1, 150 do
      local x = any_tensor()
      local dim, reduce = dim_of(x), pick { "none", "add", "multiply" }
      local d = positive(dim, x.ndim)
      local index = any_index(x, d, 9)
      local larger = shape_of(index)
      for e in ipairs(larger) do larger[e] = larger[e] + random(0, 1) end
      local src, number = relaid(generators.normal(table.unpack(larger))), nil
      if random(1, 3) == 1 then number = random(-3, 3) end
      local data, at, value = flat(x), flat(index), reader(src)
      for i, p in ipairs(at) do
        local c = coordinates(index.shape, i)
        local v = number or value(c)
        c[d] = p
        local k = offset(x.shape, c)
        data[k] = step[reduce](data[k], v)
      end
      local y = x:scatter(dim, index, number or src, { reduce = reduce })
      assert_elements("scatter " .. reduce, y, shape_of(x), function(c)
        return data[offset(x.shape, c)]
      end)
      if number then
        y = x:scatter(dim, index, { value = number, reduce = reduce })
        assert_elements("scatter of a value", y, shape_of(x), function(c)
          return data[offset(x.shape, c)]
        end)
      elseif reduce == "add" then
        assert.same(flat(y), flat(x:scatter_add(dim, index, src)))
      end
    end
    local bools = lt.tensor({ false, false }):scatter(1, lt.tensor({ 2 }, { dtype = "int64" }), { value = 1 })
    assert.same({ false, true }, bools:totable())
  end)

  it("scatter_reduce reduces", function()
    local start = { sum = 0, mean = 0, prod = 1, amax = -math.huge, amin = math.huge }
    local step = {
      sum = function(a, b) return a + b end, mean = function(a, b) return a + b end,
      prod = function(a, b) return a * b end, amax = math.max, amin = math.min,
    }
    for _ = 1, 150 do
      local x = any_tensor()
      local dim, reduce = dim_of(x), pick { "sum", "mean", "prod", "amax", "amin" }
      local d, include = positive(dim, x.ndim), random(0, 1) == 1
      local index = any_index(x, d, 9)
      local src = relaid(generators.normal(table.unpack(index.shape)))
      local data, value, n = flat(x), flat(src), {}
      for i, p in ipairs(flat(index)) do
        local c = coordinates(index.shape, i)
        c[d] = p
        local k = offset(x.shape, c)
        if not n[k] then
          n[k] = include and 1 or 0
          if not include then data[k] = start[reduce] end
        end
        data[k], n[k] = step[reduce](data[k], value[i]), n[k] + 1
      end
      local y = x:scatter_reduce(dim, index, src, { reduce = reduce, include_self = include })
      assert_elements("scatter_reduce " .. reduce, y, shape_of(x), function(c)
        local k = offset(x.shape, c)
        return reduce == "mean" and data[k] / (n[k] or 1) or data[k]
      end)
    end
    local nan = lt.tensor({ 0 / 0, 1 }):scatter_reduce(1, lt.tensor({ 1, 2 }, { dtype = "int64" }),
      lt.tensor { 5, 0 / 0 }, "amax")
    for _, v in ipairs(nan:totable()) do assert.is_true(v ~= v) end
    local ints = lt.tensor({ 1, 2 }, { dtype = "int32" }):scatter_reduce(1,
      lt.tensor({ 1, 1 }, { dtype = "int64" }), lt.tensor({ -7, -9 }, { dtype = "int32" }), "amax",
      { include_self = false })
    assert.same({ -7, 2 }, ints:totable())
  end)

  it("index_copy, index_fill and masked_scatter put", function()
    for _ = 1, 80 do
      local x = any_tensor()
      local dim = dim_of(x)
      local d = positive(dim, x.ndim)
      local n, shape = random(0, 6), shape_of(x)
      local index = generators.integers(1, x.shape[d], n)
      shape[d] = n
      local source = relaid(generators.normal(table.unpack(shape)))
      local read, value, from = reader(x), reader(source), {}
      for j, p in ipairs(flat(index)) do from[p] = j end
      assert_elements("index_copy", x:index_copy(dim, index, source), shape_of(x), function(c)
        local j = from[c[d]]
        if not j then return read(c) end
        c[d] = j
        return value(c)
      end)
      assert_elements("index_fill", x:index_fill(dim, index:to "int32", 2.5), shape_of(x),
        function(c) return from[c[d]] and 2.5 or read(c) end)
    end
    local x, mask = generators.normal(2, 1, 3), generators.mask(4, 1)
    local source = generators.normal(6, 4):transpose()
    local read, hit, value, used = reader(x), reader(mask), flat(source), 0
    assert_elements("masked_scatter", x:masked_scatter(mask, source), { 2, 4, 3 }, function(c)
      if not hit { c[2], 1 } then return read { c[1], 1, c[3] } end
      used = used + 1
      return value[used]
    end)
    assert.is_true(used > 0)
    fails("the mask names more than the 2 elements", lt.masked_scatter, lt.ones(3),
      lt.ones({ 3 }, { dtype = "bool" }), lt.ones(2))
    fails("index_copy: source must be 2x4, got 3x4", lt.index_copy, lt.ones(3, 4), 1,
      lt.ones({ 2 }, { dtype = "int64" }), lt.ones(3, 4))
  end)

  it("gives gradients to those that are seen", function()
    local index = lt.tensor({ 2, 2, 1, 2 }, { dtype = "int64" })
    local x, src = generators.normal(3), generators.normal(4)
    local weights = lt.tensor({ 10, 100, 1000 }, { dtype = "float64" })
    local function put(a, b) return (a:scatter(1, index, b) * weights):sum() end
    local dx, dsrc = gradient(put, x, src)
    assert.same({ 0, 0, 1000 }, dx:totable())
    assert.same({ 0, 0, 10, 100 }, dsrc:totable()) -- the last stays
    local function copy(a, b) return (a:index_copy(1, index, b) * weights):sum() end
    dx, dsrc = gradient(copy, x, src)
    assert.same({ 0, 0, 1000 }, dx:totable())
    assert.same({ 0, 0, 10, 100 }, dsrc:totable())

    -- products with zeros among the factors, against the product rule written out
    for _ = 1, 40 do
      local include = random(0, 1) == 1
      local data, factors, at = { 2, 0, 3 }, {}, {}
      for i = 1, 6 do factors[i], at[i] = pick { 0, 0, 1.5, -2 }, random(1, 3) end
      local function others(k, skip) -- of place k, without factor number `skip` (0: x's own)
        local p = include and skip ~= 0 and data[k] or 1
        for i = 1, 6 do
          if at[i] == k and i ~= skip then p = p * factors[i] end
        end
        return p
      end
      local float = { dtype = "float64" }
      local function product(a, b)
        local y = a:scatter_reduce(1, lt.tensor(at, { dtype = "int64" }), b,
          { reduce = "prod", include_self = include })
        return (y * weights):sum()
      end
      dx, dsrc = gradient(product, lt.tensor(data, float), lt.tensor(factors, float))
      local hit = {}
      for i = 1, 6 do hit[at[i]] = true end
      assert_elements("gradient of x", dx, { 3 }, function(c)
        local k = c[1]
        if not include and hit[k] then return 0 end
        return 10 ^ k * others(k, 0)
      end)
      assert_elements("gradient of src", dsrc, { 6 }, function(c)
        return 10 ^ at[c[1]] * others(at[c[1]], c[1])
      end)
    end

    -- equal extremes share
    local ones = lt.ones({ 2 }, { dtype = "float64" })
    dx, dsrc = gradient(function(a, b)
      return a:scatter_reduce(1, lt.tensor({ 1, 1 }, { dtype = "int64" }), b, "amax"):sum()
    end, ones, lt.tensor({ 1, 0 }, { dtype = "float64" }))
    assert.same({ 0.5, 1 }, dx:totable())
    assert.same({ 0.5, 0 }, dsrc:totable())
  end)

  it("an index that is overwritten before the walk is an error, not a crash", function()
    local x, index = generators.normal(3), lt.tensor({ 1, 2 }, { dtype = "int64" })
    local tape <close> = lt.tape()
    tape:watch(x)
    local y = x:gather(1, index)
    index[1] = 1 << 40
    assert.is_false((pcall(tape.gradient, tape, y, x)))
  end)

  it("gives the same bits for any number of threads, and adds many without loss", function()
    local x = lt.randn(50, 40, 60)
    local index = lt.randint(1, 50, { 300, 40, 60 })
    local src = lt.randn(300, 40, 60)
    local function results()
      local list = {}
      list[1] = x:scatter_add(1, index, src)
      list[2] = x:scatter(1, index, src)
      list[3] = x:gather(1, index)
      list[4] = gradient(function(t) return (t:gather(1, index) * src):sum() end, x)
      list[5] = gradient(function(t) return t:pad({ 7, 9, 5, 3 }, "reflect"):square():sum() end, x)
      list[6] = x:flip(1, 3):roll({ 3, 4 }, { 1, 2 }):pad({ 1, 2, 3, 4 }, "circular")
      return list
    end
    local threads = lt.num_threads()
    lt.set_num_threads(1)
    local alone = results()
    lt.set_num_threads(4)
    local together = results()
    lt.set_num_threads(threads)
    for k, t in ipairs(alone) do
      assert.is_true(t:eq(together[k]):all():item(), "result " .. k)
    end
    local n = 200000
    local sum = lt.zeros(1):scatter_add(1, lt.ones({ n }, { dtype = "int64" }), lt.full({ n }, 0.1))
    assert.is_true(math.abs(sum:item() / (n * 0.1) - 1) < 1e-6)
  end)
end)

-- ---- What occurs --------------------------------------------------------------------------------

describe("what occurs in a tensor", function()
  it("one_hot", function()
    local index = generators.integers(1, 4, 2, 3)
    local at = reader(index)
    assert_elements("one_hot", index:one_hot(5), { 2, 3, 5 }, function(c)
      return at { c[1], c[2] } == c[3] and 1 or 0
    end)
    assert.equal("int64", index:one_hot().dtype)
    assert.equal(index:amax():item(), index:one_hot().shape[3])
    assert.same({ 0, 1 }, lt.tensor(2, { dtype = "int32" }):one_hot():totable())
    assert.same({ 0, 3 }, shape_of(lt.zeros({ 0 }, { dtype = "int64" }):one_hot(3)))
    fails("index 6 at element 1 is outside 1..5", lt.one_hot, lt.tensor({ 6 }, { dtype = "int64" }), 5)
    fails("index 0 at element 2", lt.one_hot, lt.tensor({ 1, 0 }, { dtype = "int64" }))
    fails("how many classes", lt.one_hot, lt.zeros({ 0 }, { dtype = "int64" }))
    fails("num_classes must be at least 1", lt.one_hot, index, 0)
  end)

  it("nonzero", function()
    for _ = 1, 40 do
      local x = any_tensor(0)
      x = x * relaid(generators.integers(0, 1, table.unpack(x.shape)))
      x = x:to(pick { "float64", "float32", "bool", "uint8", "int64" })
      local rows, data = {}, flat(x)
      for i, v in ipairs(data) do
        if v ~= 0 and v ~= false then rows[#rows + 1] = coordinates(x.shape, i) end
      end
      local found = x:nonzero()
      assert.equal("int64", found.dtype)
      assert_elements("nonzero", found, { #rows, x.ndim }, function(c) return rows[c[1]][c[2]] end)
    end
    assert.same({ { 2 } }, lt.tensor({ 0, 0 / 0, 0 }):nonzero():totable())
  end)

  it("unique and bincount", function()
    for _ = 1, 40 do
      local x = relaid(generators.integers(1, 9, table.unpack(any_shape(0, 4))))
      local values, list, place, counts = {}, {}, {}, {}
      for _, v in ipairs(flat(x)) do values[v] = (values[v] or 0) + 1 end
      for v in pairs(values) do list[#list + 1] = v end
      table.sort(list)
      for i, v in ipairs(list) do place[v], counts[i] = i, values[v] end
      local dtype = pick { "int64", "float32", "int32", "uint8" }
      local u, inverse, n = x:to(dtype):unique { return_inverse = true, return_counts = true }
      assert.equal(dtype, u.dtype)
      assert.same(list, u:to("int64"):totable())
      assert.same(counts, n:totable())
      local read = reader(x)
      assert_elements("inverse", inverse, shape_of(x), function(c) return place[read(c)] end)
      assert.same(counts, select(2, x:unique { return_counts = true }):totable())
      assert.equal(1, select("#", x:unique()))
      local bins, least = x:flatten():bincount { minlength = 4 }, math.max(4, list[#list])
      assert_elements("bincount", bins, { least }, function(c) return values[c[1]] or 0 end)
    end
    local u, inverse, n = lt.zeros(0, 3):unique { return_inverse = true, return_counts = true }
    assert.same({ 0 }, shape_of(u))
    assert.same({ 0, 3 }, shape_of(inverse))
    assert.same({ 0 }, shape_of(n))
    assert.same({ 3 }, shape_of(lt.tensor({ 0 / 0, 1, 0 / 0 }):unique()))
    assert.same({ false, true }, lt.tensor({ true, false, true }):unique():totable())
    local x, w = lt.tensor({ 3, 1, 3 }, { dtype = "int64" }), lt.tensor { 0.5, 2, 0.25 }
    assert.same({ 2, 0, 0.75 }, x:bincount(w):totable())
    assert.equal("float64", x:bincount(x).dtype)
    assert.same({ 5, 1, 5 },
      gradient(function(t) return (x:bincount(t) * lt.tensor { 1, 3, 5 }):sum() end, w):totable())
    assert.same({ 0 }, shape_of(lt.zeros({ 0 }, { dtype = "int64" }):bincount()))
    fails("bincount: value 0 at element 1", lt.bincount, lt.tensor({ 0 }, { dtype = "int64" }))
    fails("one dimension", lt.bincount, lt.ones({ 2, 2 }, { dtype = "int64" }))
    fails("weights (2) must have the shape", lt.bincount, x, lt.ones(2))
    fails("minlength must not be negative", lt.bincount, x, { minlength = -1 })
  end)
end)

describe("diff", function()
  it("takes differences of neighbours", function()
    for _ = 1, 40 do
      local x = any_tensor()
      local dim = dim_of(x)
      local d, n, shape = positive(dim, x.ndim), random(0, 3), shape_of(x)
      local read = reader(x)
      local function difference(c, times)
        if times == 0 then return read(c) end
        local after = { table.unpack(c) }
        after[d] = after[d] + 1
        return difference(after, times - 1) - difference(c, times - 1)
      end
      shape[d] = math.max(shape[d] - n, 0)
      assert_elements("diff", x:diff(n, dim), shape, function(c) return difference(c, n) end)
    end
    assert.same({ 3, -1 }, lt.tensor({ 1, 4, 3 }, { dtype = "int64" }):diff():totable())
    assert.same({ 0 }, shape_of(lt.ones(3):diff(math.maxinteger)))
    local x = lt.zeros(2)
    x:diff(0)[1] = 1
    assert.equal(0, x[1]:item()) -- a copy
    assert.same({ 0 }, shape_of(lt.zeros({ 0 }):diff()))
    fails("diff: n must not be negative", lt.diff, lt.ones(3), -1)
    fails("diff: x is 0-d", lt.diff, lt.tensor(1))
    fails("diff: x must hold numbers", lt.diff, lt.tensor { true, false })
  end)
end)
