-- Tensors as a user handles them: making, reading, indexing, assigning, operators, printing.
local lt = require "luatape"

local function rows(t) return t:totable() end

describe("a tensor", function()
  it("is made from numbers, nested tables and tensors", function()
    local t = lt.tensor{ { 1, 2, 3 }, { 4, 5, 6 } }
    assert.same({ 2, 3 }, t.shape)
    assert.equal("float32", t.dtype)
    assert.equal(2, t.ndim)
    assert.equal(2, #t)
    assert.equal(6, t:numel())
    assert.same({}, lt.tensor(5).shape)
    assert.equal(5.0, lt.tensor(5):item())
    assert.equal("bool", lt.tensor{ true, false }.dtype)
    assert.equal("int64", lt.tensor({ 1, 2 }, { dtype = "int64" }).dtype)
    local copy = lt.tensor(t)
    copy[1] = 0
    assert.same({ { 1, 2, 3 }, { 4, 5, 6 } }, rows(t))
    assert.same({ { 1, 2 }, { 3, 4 } }, rows(lt.tensor{ { lt.tensor(1), 2 }, { 3, 4 } }))
    assert.same({ 0 }, lt.tensor({}).shape)
    assert.same({ 2, 0 }, lt.tensor({ {}, {} }).shape)
  end)

  it("keeps 64-bit integers whole", function()
    local big = math.maxinteger - 1
    assert.equal(big, lt.tensor({ big }, { dtype = "int64" }):get(1))
    assert.equal(math.mininteger, lt.tensor({ math.mininteger }, { dtype = "int64" }):get(1))
  end)

  it("refuses what is no number, uneven rows, deep nesting, unknown options", function()
    assert.error_matches(function() lt.tensor{ 1, "x" } end, "tensor: element 2 is a string")
    assert.error_matches(function() lt.tensor{ { 1, 2 }, { 3 } } end,
      "tensor: rows differ in length %(2 and 1%)")
    assert.error_matches(function() lt.tensor{ { 1 }, 2 } end, "tensor: element 2")
    assert.error_matches(function() lt.tensor{ 1, { 2 } } end, "tensor: tables nest unevenly")
    assert.error_matches(function() lt.tensor{ {{{{{{{{{1}}}}}}}}} } end, "nest deeper than 8")
    assert.error_matches(function() lt.tensor("abc") end, "takes a number, a table")
    assert.error_matches(function() lt.tensor({ 1 }, { dtyp = "float32" }) end,
      "unknown or bad option 'dtyp'")
    assert.error_matches(function() lt.tensor({ 1 }, { dtype = "half" }) end, "dtype must be float32")
    local cycle = {}
    cycle[1] = cycle
    assert.error_matches(function() lt.tensor(cycle) end, "nest deeper than 8")
  end)

  it("carries a name and, as a variable, whether it is trained", function()
    local w = lt.variable({ 1, 2 }, { name = "w", trainable = false })
    assert.equal("w", w.name)
    assert.is_true(w.is_variable)
    assert.is_false(w.trainable)
    w.name, w.trainable = "v", true
    assert.equal("v", w.name)
    assert.is_true(w.trainable)
    assert.error_matches(function() lt.tensor{ 1 }.trainable = true end, "only variables")
    assert.error_matches(function() w.nme = 1 end, "no field 'nme'")
    assert.error_matches(function() return w:summ() end, "no field or method 'summ' %(sum%?%)")
  end)

  it("gives the same userdata for a variable however it comes back", function()
    local w = lt.variable{ 1, 2 }
    local tape = lt.tape()
    local _ = (w * w):sum()
    assert.is_true(rawequal(w, tape:watched_variables()[1]))
    tape:close()
  end)

  it("reads elements", function()
    local t = lt.tensor{ { 1, 2 }, { 3, 4 } }
    assert.equal(3, t:get(2, 1))
    assert.equal(4, t:get(-1, -1))
    assert.equal(7, t:set(1, 2, 7):get(1, 2))
    assert.error_matches(function() t:get(3, 1) end, "index 3 is outside 1%.%.2 in dim 1")
    assert.error_matches(function() t:get(1) end, "1 indices for a tensor of shape 2x2")
    assert.error_matches(function() t:get(0, 1) end, "index 0 is outside")
    assert.error_matches(function() t:item() end, "shape 2x2 is not one number")
    assert.error_matches(function() t:set(1, 1, "x") end, "value must be a number")
  end)
end)

describe("indexing", function()
  local function grid() return lt.range(1, 12):reshape(3, 4) end

  it("takes rows, elements and ranges as views", function()
    local t = grid()
    assert.same({ 5, 6, 7, 8 }, rows(t[2]))
    assert.same({ 9, 10, 11, 12 }, rows(t[-1]))
    assert.equal(7, t[{ 2, 3 }]:item())
    assert.same({ { 1, 2 }, { 5, 6 } }, rows(t[{ { 1, 2 }, { 1, 2 } }]))
    assert.same({ 3, 7, 11 }, rows(t[{ {}, 3 }]))
    assert.same({ { 1, 3 }, { 5, 7 }, { 9, 11 } }, rows(t[{ {}, { 1, 4, 2 } }]))
    assert.same({ { 5, 6, 7, 8 }, { 9, 10, 11, 12 } }, rows(t[{ { 2, -1 } }]))
    assert.same({ 0, 4 }, t[{ { 3, 2 } }].shape)
    assert.same({ 0, 4 }, t[{ { 1, 0 } }].shape)
    t[2]:assign(0)
    assert.same({ 0, 0, 0, 0 }, rows(t[2]))
    t[{ {} }]:assign(1)
    assert.equal(12, t:sum():item())
  end)

  it("takes masks as copies", function()
    local t = grid()
    assert.same({ 10, 11, 12 }, rows(t[t:gt(9)]))
    assert.same({ 0 }, t[t:gt(99)].shape)
  end)

  it("assigns numbers, tables, tensors and masks", function()
    local t = grid()
    t[1] = 0
    t[{ 2, 2 }] = -1
    t[{ {}, 4 }] = { 7, 8, 9 }
    t[3] = lt.tensor{ 1, 1, 1, 1 }
    assert.same({ { 0, 0, 0, 7 }, { 5, -1, 7, 8 }, { 1, 1, 1, 1 } }, rows(t))
    t[t:gt(5)] = 5
    assert.same({ { 0, 0, 0, 5 }, { 5, -1, 5, 5 }, { 1, 1, 1, 1 } }, rows(t))
    t[t:eq(1)] = lt.tensor{ 10, 20, 30, 40 }
    assert.same({ 10, 20, 30, 40 }, rows(t[3]))
  end)

  it("copies between overlapping windows of one memory", function()
    local t = lt.range(1, 6)
    t[{ { 2, 6 } }] = t[{ { 1, 5 } }]
    assert.same({ 1, 1, 2, 3, 4, 5 }, rows(t))
    local s = lt.tensor{ { 1, 2 }, { 3, 4 } }
    s:assign(s:transpose())
    assert.same({ { 1, 3 }, { 2, 4 } }, rows(s))
  end)

  it("ends ipairs and refuses what is outside", function()
    local t, n = grid(), 0
    for i, row in ipairs(t) do
      n = n + 1
      assert.equal(4 * i, row:get(4))
    end
    assert.equal(3, n)
    assert.is_nil(t[4])
    assert.error_matches(function() return t[5] end, "index 5 is outside 1%.%.3")
    assert.error_matches(function() return t[0] end, "0 is no place")
    assert.error_matches(function() return t[1.5] end, "must be an integer")
    assert.error_matches(function() return t[{ 1, 1, 1 }] end, "3 entries for a tensor of shape 3x4")
    assert.error_matches(function() return t[{ { 1 } }] end, "a range is {first, last}")
    assert.error_matches(function() return t[{ { 1, 2, 0 } }] end, "step must be")
    assert.error_matches(function() return t[lt.tensor({ 1 }, { dtype = "int64" })] end,
      "index_select")
    assert.error_matches(function() t[1] = { 1, 2, 3 } end, "shape 3 does not fit into 4")
    assert.error_matches(function() t[lt.tensor{ true }] = 1 end, "the mask is 1, the tensor 3x4")
    assert.error_matches(function() return lt.tensor(1)[1] end, "0%-d")
    assert.error_matches(function() return t[print] end, "index: cannot be a function")
  end)
end)

describe("operators", function()
  it("broadcast, with numbers on either side", function()
    local t = lt.tensor{ 1, 2, 4 }
    assert.same({ 2, 3, 5 }, rows(t + 1))
    assert.same({ 0, -1, -3 }, rows(1 - t))
    assert.same({ 8, 4, 2 }, rows(8 / t))
    assert.same({ 2, 4, 16 }, rows(2 ^ t))
    assert.same({ 1, 4, 16 }, rows(t ^ 2))
    assert.same({ -1, -2, -4 }, rows(-t))
    assert.same({ 1, 0, 0 }, rows(t % 2))
    assert.same({ 0, 1, 2 }, rows(t // 2))
    assert.same({ 2, 2 }, (lt.ones(2, 1) * lt.ones(2)).shape)
    assert.error_matches(function() return lt.ones(2, 3) + lt.ones(2) end,
      "add: shapes do not broadcast %(2x3 and 2%)")
    assert.error_matches(function() return t + "x" end, "add: other must be a tensor, got a string")
    assert.error_matches(function() return t + nil end, "add: other")
  end)

  it("keep the dtype of the tensor beside a number", function()
    assert.equal("float64", (lt.ones(2, { dtype = "float64" }) * 2.5).dtype)
    assert.equal("float32", (lt.ones(2) * 2).dtype)
    local i = lt.tensor({ 3, 4 }, { dtype = "int32" })
    assert.equal("int32", (i + 1).dtype)
    assert.equal("float32", (i + 1.5).dtype)
    assert.equal("float32", (i / 2).dtype)
    assert.equal("float64", (lt.ones(2) + lt.ones(2, { dtype = "float64" })).dtype)
  end)
end)

describe("assign", function()
  it("changes variables in place and returns them", function()
    local v = lt.variable{ 1, 2 }
    assert.is_true(rawequal(v, v:assign{ 3, 4 }))
    v:assign_add(1)
    v:assign_sub(lt.tensor{ 1, 2 })
    assert.same({ 3, 3 }, rows(v))
    assert.error_matches(function() v:assign{ 1, 2, 3 } end, "shape 3 does not fit into 2")
    assert.error_matches(function() v:assign_add(lt.ones(3)) end, "add: shapes do not broadcast")
  end)
end)

describe("printing", function()
  it("aligns columns and says type and shape", function()
    assert.equal(" 1. 10.\n-2.  0.\n[float32 2x2]", tostring(lt.tensor{ { 1, 10 }, { -2, 0 } }))
    assert.equal("0.5000 1.2500\n[float32 2]", tostring(lt.tensor{ 0.5, 1.25 }))
    assert.equal("3. [float32 0-d]", tostring(lt.tensor(3)))
    assert.equal("{} [float32 0x3]", tostring(lt.zeros(0, 3)))
    assert.equal(" true false\n[bool 2]", tostring(lt.tensor{ true, false }))
    assert.equal("nan inf  1.\n[float32 3 'x']",
      tostring(lt.tensor({ 0 / 0, math.huge, 1 }, { name = "x" })))
  end)

  it("elides long axes and numbers the matrices of higher ranks", function()
    local text = tostring(lt.zeros(2000))
    assert.equal("0. 0. 0. ... 0. 0. 0.\n[float32 2000]", text)
    text = tostring(lt.ones(2, 1, 2))
    assert.equal("(1,.,.) =\n1. 1.\n(2,.,.) =\n1. 1.\n[float32 2x1x2]", text)
    assert.is_true(#tostring(lt.zeros(300, 300)) < 400)
  end)
end)

describe("an error", function()
  it("carries the line of the user's code, through our own Lua files and pcall", function()
    local line = debug.getinfo(1, "l").currentline
    local _, message = pcall(function() return lt.ones(2, 3) + lt.ones(2) end)
    assert.equal("spec/tensor_spec.lua:" .. line + 1, message:match("^(.-): "))
    _, message = pcall(function() lt.tape{ persistant = true } end)
    assert.equal("spec/tensor_spec.lua:" .. line + 3, message:match("^(.-): "))
    local co = coroutine.create(function() lt.ones(2):get(7) end)
    _, message = coroutine.resume(co)
    assert.equal("spec/tensor_spec.lua:" .. line + 5, message:match("^(.-): "))
  end)

  it("never names a wrong line for a frame that a tail call took away", function()
    local function inner() return lt.tape{ nosuch = 1 } end
    local line = debug.getinfo(1, "l").currentline
    local _, message = pcall(function() local x = inner() return x end)
    assert.equal("spec/tensor_spec.lua:" .. line + 1 .. " (in a tail call)", message:match("^(.-): "))
  end)
end)

describe("sizes", function()
  it("are refused before anything is allocated", function()
    assert.error_matches(function() lt.zeros(1 << 40, 1 << 40) end, "too many elements")
    assert.error_matches(function() lt.zeros(1 << 20, 1 << 20) end, "more memory than this machine")
    assert.error_matches(function() lt.zeros(-1) end, "negative")
    assert.error_matches(function() lt.zeros(1, 1, 1, 1, 1, 1, 1, 1, 1) end, "more than 8")
    assert.error_matches(function() lt.ones(3):expand(1 << 40, 1 << 20, 3) end, "too many elements")
  end)
end)

describe("arguments", function()
  it("of index ops come in PyTorch's order or with the dim as an option", function()
    local x, index = lt.range(1, 6):reshape(2, 3), lt.tensor({ 3, 1 }, { dtype = "int64" })
    local expected = { { 3, 1 }, { 6, 4 } }
    assert.same(expected, rows(x:index_select(2, index)))
    assert.same(expected, rows(x:index_select(index, 2)))
    assert.same(expected, rows(lt.index_select(x, index, { dim = 2 })))
    assert.same({ { 2, 2, 4 }, { 5, 5, 7 } },
      rows(x:index_add(2, index, lt.ones(2, 2))))
    assert.error_matches(function() x:index_select(3, index) end, "index_select: dim 3 is outside 1%.%.2")
    assert.error_matches(function() x:index_select(1, 2) end, "index_select: index must be a tensor")
  end)
end)
