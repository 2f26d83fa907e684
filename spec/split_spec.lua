-- Lists of tensors: splitting, grids and broadcasting to each other.
local lt = require "luatape"
local samples = require "spec.samples"

local generators = samples.generators(samples.random(20250308))

local function flat(t) return t:numel() > 0 and t:reshape { -1 }:totable() or {} end
local function shape_of(t) return { table.unpack(t.shape) } end

local function fails(message, f, ...)
  local ok, text = pcall(f, ...)
  assert(not ok, "was accepted: " .. message)
  assert(text:find(message, 1, true), ("expected '%s' in: %s"):format(message, text))
end

---The sizes along dim of the pieces, which together are x.
local function sizes(pieces, x, dim)
  local list = {}
  for i, t in ipairs(pieces) do list[i] = t.shape[dim] end
  assert.same(flat(x), flat(lt.cat(pieces, { dim = dim })))
  return list
end

describe("lists of tensors", function()
  local x = generators.normal(7, 5):transpose() -- 5x7

  it("split, chunk and tensor_split cut", function()
    assert.same({ 3, 3, 1 }, sizes(x:split(3, 2), x, 2))
    assert.same({ 2, 2, 1 }, sizes(lt.split(x, 2), x, 1))
    assert.same({ 7 }, sizes(x:split(9, -1), x, 2))
    assert.same({ 1, 0, 6 }, sizes(x:split({ 1, 0, 6 }, 2), x, 2))
    assert.same({ 2, 3 }, sizes(x:split { split_size_or_sections = { 2, 3 } }, x, 1))
    assert.same({ 4, 3 }, sizes(x:split(4, { dim = 2 }), x, 2))
    assert.same({ 0 }, sizes(lt.zeros(0, 2):split(3), lt.zeros(0, 2), 1))

    assert.same({ 3, 3, 1 }, sizes(x:chunk(3, 2), x, 2))
    assert.same({ 2, 2, 2, 1 }, sizes(x:chunk(5, 2), x, 2)) -- fewer than asked for
    assert.same({ 1, 1, 1, 1, 1 }, sizes(x:chunk { chunks = 9, dim = 1 }, x, 1))
    assert.same({ 0, 0 }, sizes(lt.zeros(0, 2):chunk(2), lt.zeros(0, 2), 1))

    assert.same({ 3, 2, 2 }, sizes(x:tensor_split(3, 2), x, 2))
    assert.same({ 1, 1, 1, 1, 1, 0 }, sizes(x:tensor_split(6), x, 1))
    assert.same({ 2, 3, 2 }, sizes(x:tensor_split({ 3, 6 }, { dim = 2 }), x, 2))
    assert.same({ 5, 2 }, sizes(x:tensor_split({ -2 }, 2), x, 2))
    assert.same({ 7, 0 }, sizes(x:tensor_split({ 99 }, 2), x, 2))

    fails("split: the sections must sum to 7", lt.split, x, { 3, 3 }, 2)
    fails("split: split_size_or_sections must be at least 1", lt.split, x, 0)
    fails("split_size_or_sections[2] must be at least 0", lt.split, x, { 8, -1 }, 2)
    fails("split: split_size_or_sections is missing", lt.split, x)
    fails("split: dim 3 is outside 1..2", lt.split, x, 1, 3)
    fails("split: dim is 0", lt.split, x, 1, 0)
    fails("split: unknown option 'size'", lt.split, x, { size = 1 })
    fails("split: x must be a tensor", lt.split, 1, 1)
    fails("split: x is 0-d", lt.split, lt.tensor(1), 1)
    fails("chunk: chunks must be at least 1", lt.chunk, x, 0)
    fails("chunk: chunks must be an integer, got 1.5", lt.chunk, x, 1.5)
    fails("they count from 1", lt.tensor_split, x, { 0 })

    local long = lt.ones(1):expand(1 << 40)
    for _, f in ipairs { lt.split, lt.chunk, lt.tensor_split } do
      fails("at most 1048576 are possible", f, long, f == lt.split and 1 or 1 << 40)
    end
    fails("at most 1048576 are possible", lt.unbind, long)
    fails("at most 1048576 are possible", lt.chunk, lt.zeros { 0 }, 1 << 40)
  end)

  it("unbind takes slices", function()
    local slices = x:unbind(2)
    assert.equal(7, #slices)
    for i, t in ipairs(slices) do assert.same(x:select(2, i):totable(), t:totable()) end
    assert.equal(5, #lt.unbind(x, { dim = -2 }))
    assert.same({}, lt.zeros(0, 3):unbind())
    fails("unbind: x is 0-d", lt.unbind, lt.tensor(1))
  end)

  it("are views with gradients", function()
    local v = lt.variable { 1, 2, 3, 4 }
    local tape <close> = lt.tape { persistent = true }
    local parts = v:split { 1, 3 }
    local y = (parts[1] * 5):sum() + parts[2]:square():sum() + v:unbind()[4]
    assert.same({ 5, 4, 6, 9 }, tape:gradient(y, v):totable())
    local t = lt.zeros(4)
    t:chunk(2)[2][1] = 7
    assert.same({ 0, 0, 7, 0 }, t:totable())
  end)

  it("meshgrid and broadcast_tensors", function()
    local a, b, c = lt.tensor { 1, 2, 3 }, lt.tensor { 10, 20 }, lt.tensor(5)
    local grid = lt.meshgrid(a, b)
    assert.same({ { 1, 1 }, { 2, 2 }, { 3, 3 } }, grid[1]:totable())
    assert.same({ { 10, 20 }, { 10, 20 }, { 10, 20 } }, grid[2]:totable())
    grid = lt.meshgrid({ a, b, c }, { indexing = "xy" })
    assert.same({ 2, 3, 1 }, shape_of(grid[3]))
    assert.same({ { { 1 }, { 2 }, { 3 } }, { { 1 }, { 2 }, { 3 } } }, grid[1]:totable())
    assert.same({ 3 }, shape_of(lt.meshgrid({ a }, { indexing = "xy" })[1]))
    fails("meshgrid: indexing must be one of", lt.meshgrid, a, b, { indexing = "ji" })
    fails("meshgrid: tensor 1 must have one dimension", lt.meshgrid, lt.ones(2, 2))
    fails("meshgrid: takes one tensor or more", lt.meshgrid)
    fails("meshgrid: tensor 2 must be a tensor", lt.meshgrid, { a, 1 })
    fails("meshgrid: takes tensors", lt.meshgrid, a, 1)
    fails("meshgrid: takes at most 8 tensors", lt.meshgrid, a, a, a, a, a, a, a, a, a)

    local both = lt.broadcast_tensors(lt.ones(3, 1), lt.zeros(2, 1, 4), lt.tensor(1))
    for i = 1, 3 do assert.same({ 2, 3, 4 }, shape_of(both[i])) end
    assert.same({ 2, 0 }, shape_of(lt.broadcast_tensors({ lt.ones(2, 1), lt.ones({ 0 }) })[1]))
    fails("broadcast_tensors: shapes do not broadcast", lt.broadcast_tensors, lt.ones(3), lt.ones(2))
  end)
end)
