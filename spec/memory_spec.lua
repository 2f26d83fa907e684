-- C memory and the collector: dead tensors do not pile up, live ones stay, in both modes.
local lt = require "luatape"

local function settle()
  collectgarbage()
  collectgarbage()
end

for _, mode in ipairs{ "generational", "incremental" } do
  describe("in " .. mode .. " mode", function()
    local before_mode
    setup(function() before_mode = collectgarbage(mode) end)
    teardown(function() collectgarbage(before_mode) end)

    it("dead tensors stay under 64 MiB beside a Lua heap of 20 MB", function()
      local heap = {}
      for i = 1, 200000 do heap[i] = { i } end
      settle()
      local live = lt.memory().live + lt.memory().pooled -- of what ran before
      local most = 0
      for i = 1, 1500 do
        local _ = lt.zeros(512, 512)
        if i % 10 == 0 then most = math.max(most, lt.memory().live + lt.memory().pooled) end
      end
      assert.is_true(most - live < 64 << 20, "peak " .. (most - live) / 2 ^ 20 .. " MiB")
      assert.equal(200000, #heap)
    end)

    it("a training loop's memory does not grow, closed tapes or not", function()
      local w = lt.variable(lt.randn(100, 100))
      local x = lt.randn(64, 100)
      local function step(close)
        local tape = lt.tape()
        local g = tape:gradient(x:matmul(w):tanh():sum(), w)
        w:assign_sub(g * 1e-3)
        if close then tape:close() end
      end
      for _ = 1, 50 do step(true) end
      settle()
      local live, heap = lt.memory().live, collectgarbage "count"
      for i = 1, 600 do step(i % 2 == 0) end
      settle()
      assert.is_true(lt.memory().live <= live + 1000)
      -- light nodes of the history are C memory; the Lua heap itself must be flat
      assert.is_true(collectgarbage "count" < heap + 200)
    end)

    it("what the program holds stays valid while the rest goes", function()
      local kept = {}
      for i = 1, 200 do
        local t = lt.full({ 1000 }, i)
        if i % 10 == 0 then kept[#kept + 1] = t[{ { 5, 10 } }] end
        if i % 50 == 0 then settle() end
      end
      for i, view in ipairs(kept) do assert.equal(i * 10, view:get(3)) end
    end)
  end)
end

describe("memory", function()
  it("counts live, peak and pooled bytes", function()
    settle()
    local before = lt.memory()
    local held = { lt.zeros(1000, 1000) }
    local with = lt.memory()
    assert.is_true(with.live - before.live >= 4000000 and with.live - before.live < 5000000)
    assert.is_true(with.peak >= with.live)
    assert.equal(1000000, held[1]:numel())
    held[1] = nil
    settle()
    assert.is_true(lt.memory().live <= before.live)
  end)

  it("shares views and counts a block once", function()
    settle()
    local t = lt.zeros(1000, 1000)
    local live = lt.memory().live
    local views = {}
    for i = 1, 1000 do views[i] = t[i] end
    assert.equal(live, lt.memory().live)
    assert.equal(1000, #views)
  end)

  it("survives an error in the middle of an op's arguments without a leak", function()
    local x = lt.zeros(10)
    settle()
    local live = lt.memory().live
    for _ = 1, 200 do
      pcall(function() return x + "x" end)
      pcall(function() return x:reshape(3) end)
      pcall(function() return lt.cat({ x, x, 1 }, 1) end)
      pcall(function() return lt.tensor{ 1, 2, "x" } end)
      pcall(function() return x:index_select(1, lt.tensor({ 11 }, { dtype = "int64" })) end)
      pcall(function() return 2 ^ x + lt.zeros(3) end)
    end
    settle()
    assert.is_true(lt.memory().live <= live)
  end)
end)
