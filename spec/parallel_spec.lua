-- The same bits for any number of threads: kernels, random numbers, a training run.
local lt = require "luatape"

local function bits(t) return table.concat(t:reshape(-1):totable(), " ", 1, math.min(t:numel(), 4000)) end

--- Runs f() with 1, 2, 3 and 4 threads from the same seed; all must give the same.
local function same(f)
  local before = lt.num_threads()
  local first
  for n = 1, 4 do
    lt.set_num_threads(n)
    lt.manual_seed(42)
    local got = f()
    first = first or got
    assert.equal(first, got, "with " .. n .. " threads")
  end
  lt.set_num_threads(before)
end

describe("threads do not change", function()
  it("random numbers", function()
    same(function() return bits(lt.randn(300001):sum() + lt.rand(1000, 1000)[500][3]) end)
    same(function() return bits(lt.randperm(5000)) end)
  end)

  it("elementwise ops and reductions", function()
    local x
    same(function()
      x = lt.randn(1500, 1001)
      return bits(lt.exp(x):sum()) .. bits(x:sum(1)) .. bits(x:sum(2)) .. bits((x * 2 + 1):mean())
        .. bits(x:transpose():contiguous():cumsum(1)[7])
    end)
    same(function() return bits(lt.randn(1200, 1000):softmax(2):log_softmax(1)[3]) end)
  end)

  it("products", function()
    for _, n in ipairs{ 130, 300, 701 } do
      same(function() return bits(lt.randn(n, n + 3):matmul(lt.randn(n + 3, n - 1))) end)
    end
    same(function() return bits(lt.randn(40, 70, 80):matmul(lt.randn(40, 80, 60)):sum(1)) end)
    same(function()
      local a = lt.randn(500, 480, { dtype = "float64" })
      return bits(a:transpose():matmul(a)[77])
    end)
  end)

  it("a training run", function()
    same(function()
      local model = lt.nn.Sequential{ lt.nn.Linear(64, 300), lt.nn.ReLU(), lt.nn.Linear(300, 10) }
      local opt = lt.optim.Adam{ lr = 1e-3 }
      local x, y = lt.randn(800, 64), lt.randint(1, 10, { 800 })
      for _ = 1, 5 do
        local tape <close> = lt.tape()
        local loss = lt.cross_entropy(model(x), y)
        opt:apply_gradients(tape:gradient(loss, model:parameters()), model:parameters())
      end
      return bits(model[1].weight)
    end)
  end)

  it("a number below 1 or no number is refused", function()
    assert.error_matches(function() lt.set_num_threads(0) end, "set_num_threads: takes 1 or more")
    assert.error_matches(function() lt.set_num_threads("2") end, "takes an integer, got a string")
  end)
end)
