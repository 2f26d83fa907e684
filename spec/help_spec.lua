-- lt.help: every op and every public function of the Lua half has words, and they are found.
local lt = require "luatape"

describe("help", function()
  it("lists the ops and has words for each of them", function()
    local count = 0
    for name in lt.help():gmatch "%S+" do
      count = count + 1
      assert.matches("lt." .. name .. "(", lt.help(name), 1, true)
    end
    assert.is_true(count > 100)
  end)
  it("shows arguments, options with their defaults, and choices", function()
    local text = lt.help "cross_entropy"
    assert.matches('reduction "mean", "sum", "none"; default "mean"', text, 1, true)
    assert.matches("label_smoothing number; default 0", text, 1, true)
    assert.matches("lt.index_select(x, dim, index)", lt.help "index_select", 1, true)
  end)
  it("knows functions, methods, modules and optimizers, by short and by full names", function()
    for name, head in pairs {
      item = "tensor:item()", ["tape:gradient"] = "tape:gradient(target, sources, options)",
      ["lt.optim.Adam"] = "lt.optim.Adam{lr = 0.001", Linear = "lt.nn.Linear(in_features",
      ["nn.ReLU"] = "lt.nn.ReLU()", ["lt.data.csv"] = "lt.data.csv(path, options)",
    } do
      assert.equal(head, lt.help(name):sub(1, #head))
    end
  end)
  it("refuses names that do not exist", function()
    assert.error_matches(function() lt.help "nosuch" end, "nothing is named 'nosuch'")
    assert.error_matches(function() lt.help {} end, "takes a name, got a table")
  end)
end)
