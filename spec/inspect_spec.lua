-- Looking at tapes: ops, print, dot, memory; while they record, used up, closed.
local lt = require "luatape"

local function line() return debug.getinfo(2, "l").currentline end
local function here(n) return "spec/inspect_spec.lua:" .. n end

---The operations as a list.
local function list(tape)
  local nodes = {}
  for k, node in tape:ops() do
    assert.equal(#nodes + 1, k)
    nodes[k] = node
  end
  return nodes
end

describe("tape:ops", function()
  it("gives op, place, inputs and outputs of what was recorded", function()
    local w, x = lt.variable(lt.ones(3, 2), { name = "w" }), lt.tensor({ { 1, 2, 3 } })
    local b = lt.variable(lt.zeros(2))
    local tape <close> = lt.tape()
    tape:watch(x)
    local first = line() + 1
    local h = x:matmul(w) + b
    local y = h:max { dim = 2 }
    local nodes = list(tape)
    assert.equal(3, #nodes)
    assert.equal(tape.count, #nodes)
    local product, sum, max = nodes[1], nodes[2], nodes[3]
    assert.same({ "matmul", "add", "max" }, { product.op, sum.op, max.op })
    assert.same({ here(first), here(first), here(first + 1) }, { product.where, sum.where, max.where })
    assert.same({ { 1, 3 }, { 3, 2 }, { 1, 2 } },
      { product.inputs[1].shape, product.inputs[2].shape, product.outputs[1].shape })
    assert.is_true(product.inputs[1].source)
    assert.is_nil(product.inputs[1].name)
    assert.equal("w", product.inputs[2].name)
    assert.is_true(product.inputs[2].source and sum.inputs[2].source)
    assert.is_nil(sum.inputs[1].source)
    assert.equal(product.outputs[1].id, sum.inputs[1].id)
    assert.equal("float32", sum.outputs[1].dtype)
    assert.same({ "float32", "int64" }, { max.outputs[1].dtype, max.outputs[2].dtype })
    assert.is_true(product.gradient)
    assert.same({ 1 }, y.shape)
  end)

  it("does not list what no tape recorded", function()
    local w = lt.variable { 1, 2 }
    local tape <close> = lt.tape()
    local _ = { w:detach() * 2, w:gt(0), lt.no_grad(function() return w * w end), lt.ones(3) * 2 }
    assert.same({}, list(tape))
    _ = w * 2
    assert.equal(1, #list(tape))
    tape:reset()
    assert.same({}, list(tape))
  end)

  it("names kept tensors, and counts a block once", function()
    local w = lt.variable(lt.ones(1000))
    local x = lt.tensor(lt.ones(1000):totable(), { name = "data" })
    local tape = lt.tape()
    local y = w * x
    local z = y:exp()
    local _ = y * z + z:tanh():sum()
    local nodes = list(tape)
    assert.equal("data", nodes[1].inputs[2].name)
    assert.is_nil(nodes[1].inputs[2].source)
    local bytes = {}
    for k, node in ipairs(nodes) do bytes[k] = node.bytes end
    -- w is no gradient's business: x alone; then exp(y); y (exp is known); tanh's result
    for k, blocks in ipairs { 1, 1, 1, 1, 0, 0 } do
      assert.is_true(bytes[k] >= 4000 * blocks and bytes[k] < 5000 * blocks + 1, k .. ": " .. bytes[k])
    end
    tape:gradient(z, w)
    nodes = list(tape)
    assert.equal(6, #nodes)
    for _, node in ipairs(nodes) do assert.equal(0, node.bytes) end
    assert.equal("exp", nodes[2].op)
    tape:close()
    assert.equal(6, #list(tape))
  end)

  it("goes on while the tape records, and ends when it is reset", function()
    local w = lt.variable { 1, 2 }
    local tape <close> = lt.tape()
    local y, seen = w * 2, 0
    for _ in tape:ops() do
      seen = seen + 1
      if seen < 4 then y = y * w end
    end
    assert.equal(4, seen)
    for k in tape:ops() do
      assert.equal(1, k)
      tape:reset()
    end
    assert.error_matches(function() tape.ops() end, "takes a tape, got nothing")
  end)
end)

describe("tape:print", function()
  local function printed(tape)
    local text
    tape:print(function(s) text = s end)
    return text
  end

  it("writes a table to a function, a file or the output", function()
    local w, x = lt.variable(lt.ones(3, 2), { name = "w" }), lt.ones(4, 3)
    local tape <close> = lt.tape()
    local at = line() + 1
    local _ = x:matmul(w):relu()
    local text = printed(tape)
    local rows = {}
    for row in text:gmatch "[^\n]+" do rows[#rows + 1] = row end
    assert.equal(4, #rows)
    assert.matches("^tape %(recording, 2 operations%), %d+ B kept$", rows[1])
    assert.matches("^#  op      inputs               outputs  where +bytes$", rows[2])
    assert.matches("^1  matmul  constant 4x3, w 3x2  %-> 4x2", rows[3])
    assert.matches("^2  relu    #1 4x2               %-> 4x2   " .. here(at):gsub("%p", "%%%0") .. " +%d+$",
      rows[4])
    local name = os.tmpname()
    local file = assert(io.open(name, "w"))
    tape:print(file)
    file:close()
    file = assert(io.open(name))
    assert.equal(text, file:read "a")
    file:close()
    os.remove(name)
    assert.error_matches(function() tape:print(file) end, "takes an open file or a function, got userdata")
    assert.error_matches(function() tape:print "out.txt" end, "got string")
  end)

  it("numbers several results, and says when the tape is used up or closed", function()
    local w = lt.variable { { 1, 2 }, { 3, 4 } }
    local tape = lt.tape()
    local value = w:max { dim = 1 }
    local y = (value * 2):sum()
    assert.matches("\n2  mul +#1.1 2, constant 0%-d +%-> 2", printed(tape))
    assert.matches("\n1  max +source 2x2 +%-> 2, 2", printed(tape))
    tape:gradient(y, w)
    assert.matches("^tape %(used up, 3 operations%), 0 B kept\n", printed(tape))
    tape:close()
    assert.matches("^tape %(closed, 3 operations%), 0 B kept\n", printed(tape))
    local empty <close> = lt.tape()
    assert.matches("^tape %(recording, 0 operations%), 0 B kept\n#", printed(empty))
  end)
end)

describe("tape:dot", function()
  it("draws operations, and sources as boxes", function()
    local w = lt.variable(lt.ones(3, 2), { name = 'a "w" \\' })
    local tape <close> = lt.tape()
    local at = line() + 1
    local _ = (lt.ones(4, 3):matmul(w) * w:sum()):exp()
    local dot = tape:dot()
    assert.matches("^digraph tape {\n.*\n}\n$", dot)
    local box = dot:match('(v%d+) %[shape = box, label = "a \\"w\\" \\\\\\n3x2"%];')
    assert.is_string(box)
    assert.matches('op1 [label = "matmul\\n4x2\\n' .. here(at) .. '"];', dot, 1, true)
    for _, edge in ipairs { box .. " -> op1", box .. " -> op2", "op1 -> op3", "op2 -> op3", "op3 -> op4" } do
      assert.matches("  " .. edge .. ";\n", dot, 1, true)
    end
    local _, boxes = dot:gsub("shape = box", "")
    assert.equal(1, boxes)
  end)
end)

describe("tape:memory", function()
  it("sums by line, the largest first", function()
    local w = lt.variable(lt.ones(1000))
    local tape = lt.tape()
    local y = w
    local small = line() + 1
    local _ = lt.variable({ 1, 2 }):exp() + lt.variable({ 1, 2 }):exp()
    local large = line() + 1
    for _ = 1, 5 do y = y:exp() end
    local none = line() + 1
    local z = y + w
    local memory = tape:memory()
    assert.equal(3, #memory)
    assert.same({ here(large), here(small), here(none) },
      { memory[1].where, memory[2].where, memory[3].where })
    assert.same({ 5, 3, 1 }, { memory[1].ops, memory[2].ops, memory[3].ops })
    assert.is_true(memory[1].bytes >= 20000 and memory[1].bytes < 25000)
    assert.equal(0, memory[3].bytes)
    assert.equal(memory.total, memory[1].bytes + memory[2].bytes)
    local printed = tostring(memory)
    assert.matches("^where +ops +bytes\n" .. here(large):gsub("%p", "%%%0") .. " +5 +%d+\n", printed)
    assert.matches("\ntotal +" .. memory.total .. "$", printed)
    tape:gradient(z, w)
    memory = tape:memory()
    assert.equal(0, memory.total)
    assert.equal(3, #memory)
    tape:close()
    assert.equal(0, tape:memory().total)
    local empty <close> = lt.tape()
    assert.equal(0, #empty:memory())
  end)
end)
