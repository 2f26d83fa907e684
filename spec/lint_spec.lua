-- lt.lint: what it finds, what it leaves alone.
local lt = require "luatape"

local function line() return debug.getinfo(2, "l").currentline end
local function here(n) return "spec/lint_spec.lua:" .. n end

---The findings with that code.
local function with(findings, code)
  local list = {}
  for _, finding in ipairs(findings) do
    if finding.code == code then list[#list + 1] = finding end
  end
  return list
end

---The only finding with that code.
local function only(findings, code)
  local list = with(findings, code)
  assert(#list == 1, ("%d findings [%s] in\n%s"):format(#list, code, tostring(findings)))
  assert.matches("[" .. code .. "]", list[1].message, 1, true)
  assert.equal(list[1].message, tostring(list[1]))
  if list[1].where then assert.equal(list[1].where .. ": ", list[1].message:sub(1, #list[1].where + 2)) end
  return list[1]
end

describe("lint", function()
  local x
  before_each(function()
    lt.manual_seed(5)
    x = lt.randn(32, 3)
  end)

  local function weights(...) return lt.variable(lt.randn(...), { name = "w" }) end

  it("finds nothing in a network that trains, and changes no variable", function()
    local net = lt.nn.Sequential { lt.nn.Linear(3, 16), lt.nn.ReLU(), lt.nn.Linear(16, 8), lt.nn.Tanh(),
      lt.nn.Linear(8, 4) }
    local labels = lt.randint(1, 4, { 32 })
    local before = net:parameters()[1]:clone()
    local function loss() return lt.cross_entropy(net(x), labels), "more" end
    for _, vars in ipairs { net, net:parameters(), { a = { net:parameters() } }, net:parameters()[1] } do
      local findings = lt.lint(loss, vars)
      assert.equal("nothing found", tostring(findings))
      assert.equal(0, #findings)
    end
    assert.equal(0, #lt.lint(loss))
    assert.is_true(lt.allclose(before, net:parameters()[1], { rtol = 0, atol = 0 }))
  end)

  it("missing gradients, variables of one cause in one finding", function()
    local w, a, b = weights(3, 1), lt.variable({ 1 }, { name = "a" }), lt.variable({ 1 }, { name = "b" })
    local dead, frozen = lt.variable({ 1 }, { name = "d" }), lt.variable({ 1 }, { trainable = false })
    local use = line() + 2
    local findings = lt.lint(function()
      local _ = dead * 2
      return x:matmul(w):sum()
    end, { w, a, b, dead, frozen })
    assert.equal(2, #findings)
    local unused = only(findings, "unused")
    assert.same({ "a", "b" }, unused.variables)
    assert.equal("a", unused.variable)
    assert.matches("The same holds for b.", unused.message, 1, true)
    assert.equal(here(use), only(findings, "dead-end").where)
  end)

  it("partial gradients, numbers that came back, casts to integers", function()
    local w = weights(3, 1)
    local first = line() + 2
    local findings = lt.lint(function()
      local y = x:matmul(w) * w:detach():sum()
      local size = w:abs():sum():item()
      local steps = w:to("int64"):to("float32"):sum()
      return y:mean() * size + steps
    end)
    local partial = only(findings, "partial")
    assert.same({ here(first), "detach", "w" }, { partial.where, partial.op, partial.variable })
    assert.matches("(stopped)", partial.message, 1, true)
    local left = only(findings, "left-tensors")
    assert.same({ here(first + 1), "item", "w" }, { left.where, left.op, left.variable })
    assert.same({ here(first + 2), "to" }, { only(findings, "int-cast").where, only(findings, "int-cast").op })
    assert.equal(3, #findings)
  end)

  it("left-tensors, where nothing else is left", function()
    local w, v = weights(3, 1), lt.variable({ 2 }, { name = "v" })
    local read = line() + 1
    local findings = lt.lint(function() return (v * x:matmul(w):mean():item()):sum() end, { v, w })
    assert.same({ here(read), "w" },
      { only(findings, "left-tensors").where, only(findings, "left-tensors").variable })
  end)

  it("integers among floats, and as variables", function()
    local w, k = weights(3), lt.tensor({ 1, 2, 3 }, { dtype = "int64" })
    local first = lt.tensor({ 1 }, { dtype = "int64" })
    local at = line() + 1
    local function loss() return (w * k):sum() + (w * 3):sum() + w:index_select(1, first):sum() end
    local found = only(lt.lint(loss, { w }), "int-dtype")
    assert.same({ here(at), "mul" }, { found.where, found.op })
    assert.matches("int64 tensor (3)", found.message, 1, true)
    assert.equal(2, #with(lt.lint(loss, { w, k }), "int-dtype"))
  end)

  it("dead units, with their share", function()
    local w = weights(3, 4)
    local b = lt.variable { -100, 5, -100, 5 }
    local at = line() + 1
    local function loss() return (x:matmul(w) + b):relu():sum() end
    local found = only(lt.lint(loss), "dead-units")
    assert.same({ here(at), "relu", 0.5 }, { found.where, found.op, found.share })
    assert.matches("after relu, 50% of the units are zero for the whole batch", found.message, 1, true)
    -- three samples say nothing about single units; all of them dead is another matter
    local few = lt.randn(3, 3)
    assert.same({}, with(lt.lint(function() return (few:matmul(w) + b):relu():sum() end), "dead-units"))
    assert.equal(1, only(lt.lint(function() return (few:matmul(w) - 100):relu():sum() end), "dead-units").share)
    -- channels of images count as units
    local image, bias = lt.variable(lt.randn(8, 2, 5, 5)), lt.tensor { -100, 0 }
    found = only(lt.lint(function() return (image + bias:reshape(2, 1, 1)):relu():sum() end), "dead-units")
    assert.equal(0.5, found.share)
  end)

  it("saturated sigmoid, tanh and softmax; a line that runs often once", function()
    local w = weights(3, 4)
    for name, scale in pairs { sigmoid = 1e4, tanh = 1e4, softmax = 1e4 } do
      local at = line() + 1
      local function loss(k) return lt[name](x:matmul(w) * k, name == "softmax" and { dim = 2 } or nil):sum() end
      local found = only(lt.lint(function() return loss(0.1) + loss(scale) end), "saturated")
      assert.same({ here(at), name }, { found.where, found.op })
      assert.is_true(found.share > 0.9 and found.share <= 1)
      assert.matches("the worst of 2 calls", found.message, 1, true)
      assert.same({}, with(lt.lint(function() return loss(0.1) end), "saturated"))
    end
  end)

  it("zero, tiny, large and non-finite gradients", function()
    local function norms(scale) -- the variable is made in one line, for all of them
      local v = lt.variable({ 1, 1 }, { name = "v" })
      return lt.lint(function() return (v * scale):sum() end)
    end
    assert.equal("v", only(norms(0), "zero").variable)
    assert.matches("norm 1.4e-10", only(norms(1e-10), "tiny-gradient").message, 1, true)
    local large = only(norms(1e6), "large-gradient")
    assert.matches("1e+06 times that of the variable", large.message, 1, true)
    assert.matches(here "%d+", large.where)
    assert.equal("v", only(norms(0 / 0), "nonfinite").variable)
    assert.equal(0, #norms(10))
    -- a bias that starts at 0 has no norm to compare with
    local zero = lt.variable { 0, 0 }
    assert.equal(0, #lt.lint(function() return (zero * 1e6):sum() end))
  end)

  it("refuses what is no loss and no variables, and closes its tape", function()
    local w = weights(3)
    assert.error_matches(function() lt.lint(3) end, "lint: takes a function that computes the loss, got a number")
    assert.error_matches(function() lt.lint(function() return w:sum():item() end) end,
      "lint: the function must return the loss as a tensor.*%[left%-tensors%]")
    assert.error_matches(function() lt.lint(function() return w:sum() end, "w") end, "lint: vars must be")
    local endless = {}
    endless[1] = endless
    assert.error_matches(function() lt.lint(function() return w:sum() end, endless) end, "nest too deeply")
    for _ = 1, 100 do pcall(lt.lint, function() error "mine" end) end
    assert.error_matches(function() lt.lint(function() error("mine", 0) end) end, "^mine$")
    local tape <close> = lt.tape()
    assert.equal(0, tape.count)
  end)
end)
