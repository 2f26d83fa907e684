-- lt.help: every op and every public function of the Lua half has words, and they are found.
local lt = require "luatape"

describe("help", function()
  it("lists the ops by pages and has words for each of them", function()
    local count = 0
    assert.matches("\nLosses\n  binary_cross_entropy ", lt.help(), 1, true)
    for line in lt.help():gmatch "[^\n]+" do
      if line:find "^  " then
        for name in line:gmatch "%S+" do
          count = count + 1
          assert.matches("lt." .. name .. "(", lt.help(name), 1, true)
        end
      end
    end
    local ops = 0
    for _, op in pairs(lt.ops) do ops = ops + (op.internal and 0 or 1) end
    assert.equal(ops, count)
  end)
  it("shows arguments, options with their defaults, and choices", function()
    local text = lt.help "cross_entropy"
    assert.matches('reduction "mean", "sum", "none"; default "mean"', text, 1, true)
    assert.matches("label_smoothing number; default 0", text, 1, true)
    assert.matches("lt.index_select(x, dim, index)", lt.help "index_select", 1, true)
  end)
  it("shows types, derivatives, errors and an example of an op", function()
    local text = lt.help "matmul"
    assert.matches("dtypes: float32, float64: the same; int64, int32, uint8, bool: refused", text, 1,
      true)
    assert.matches("gradient: yes, of any order", text, 1, true)
    assert.matches("forward mode: the product rule", text, 1, true)
    assert.matches("vmap: one run for all samples", text, 1, true)
    assert.matches("errors:\n    matmul: ", text, 1, true)
    assert.matches("lt.matmul(lt.randn(3, 4), lt.randn(4, 2)) --> float32 3x2", text, 1, true)
    assert.matches("--> int64 nx2", lt.help "nonzero", 1, true)
    assert.matches("gradient: ends here", lt.help "detach", 1, true)
  end)
  it("leaves random numbers, the default dtype and open tapes as they were", function()
    lt.manual_seed(3)
    local expected = lt.rand(3):totable()
    lt.manual_seed(3)
    lt.set_default_dtype "float64"
    local tape <close> = lt.tape()
    local text = lt.help "dropout"
    local dtype = lt.get_default_dtype()
    lt.set_default_dtype "float32"
    assert.equal("float64", dtype)
    assert.equal(0, tape.count)
    assert.matches("--> float32", text, 1, true)
    assert.same(expected, lt.rand(3):totable())
  end)
  it("knows functions, methods, modules and optimizers, by short and by full names", function()
    for name, head in pairs {
      item = "tensor:item()", ["tape:gradient"] = "tape:gradient(target, sources, options)",
      ["lt.optim.Adam"] = "lt.optim.Adam{lr = 0.001", Linear = "lt.nn.Linear(in_features",
      ["nn.ReLU"] = "lt.nn.ReLU()", ["lt.data.csv"] = "lt.data.csv(path, options)",
      vmap = "lt.vmap(f, options)", ["tape:jacobian"] = "tape:jacobian(target, sources, options)",
    } do
      assert.equal(head, lt.help(name):sub(1, #head))
    end
  end)
  it("refuses names that do not exist", function()
    assert.error_matches(function() lt.help "nosuch" end, "nothing is named 'nosuch'")
    assert.error_matches(function() lt.help {} end, "takes a name, got a table")
  end)
end)
