--- Looking at tapes: what was recorded, as a loop, a table, a picture, and what it costs. A tape that
--- was used up or closed still knows its operations; the values that they kept are gone.
local _, core = ...
local arguments = core.import "luatape.arguments"
local Tape = core.import "luatape.tape"

local fail = arguments.fail

--- One recorded operation.
---@class luatape.tape.node
---@field op string its name, an entry of lt.ops (or "custom")
---@field where string the call site, "train.lua:11"
---@field inputs luatape.tape.value[] absent ones left out
---@field outputs luatape.tape.value[]
---@field bytes integer of the values that it keeps for gradients; a block of memory counts once, at
---  the first operation that keeps it. Weights count too.
---@field gradient boolean whether it has a gradient rule

--- A value that an operation read or made.
---@class luatape.tape.value
---@field id integer the same for one value everywhere on the tape
---@field shape integer[]
---@field dtype string
---@field name string? of a variable, or of a tensor that the operation keeps
---@field source boolean? true for trainable variables and watched tensors

--- Iterates the recorded operations in the order in which they ran.
---
---     for k, node in tape:ops() do print(k, node.op, node.where) end
---
---@return fun(): integer?, luatape.tape.node?
function Tape:ops()
  local seen, sources, k = {}, core.tape_sources(self), 0
  return function()
    k = k + 1
    if k > self.count then return nil end
    return k, core.inspect(self, k, seen, sources)
  end
end

---"3x4", or "0-d".
local function shape_text(shape) return #shape > 0 and table.concat(shape, "x") or "0-d" end

---"12.3 KB".
local function size_text(bytes)
  if bytes < 1024 then return ("%d B"):format(bytes) end
  local unit = 0
  repeat
    bytes, unit = bytes / 1024, unit + 1
  until bytes < 1024 or unit == 4
  return ("%.1f %s"):format(bytes, ({ "KB", "MB", "GB", "TB" })[unit])
end

--- Columns of text, aligned; those in `right` to the right.
---@param rows string[][]
---@param right table<integer, boolean>
local function align(rows, right)
  local widths, lines = {}, {}
  for _, row in ipairs(rows) do
    for i, text in ipairs(row) do widths[i] = math.max(widths[i] or 0, #text) end
  end
  for k, row in ipairs(rows) do
    local parts = {}
    for i, text in ipairs(row) do
      local gap = (" "):rep(widths[i] - #text)
      parts[i] = right[i] and gap .. text or text .. gap
    end
    lines[k] = (table.concat(parts, "  "):gsub(" +$", ""))
  end
  return table.concat(lines, "\n")
end

--- Notes the names of what a node made: "#3", or "#3.2" for the second of several results.
local function note_outputs(made, k, node)
  for i, out in ipairs(node.outputs) do
    made[out.id] = #node.outputs > 1 and ("#%d.%d"):format(k, i) or "#" .. k
  end
end

--- How the table calls a value.
local function value_text(value, made)
  local label = made[value.id] or value.name
    or (value.source and "source" or "constant")
  return label .. " " .. shape_text(value.shape)
end

local function print_text(tape)
  local made, total = {}, 0
  local rows = { { "#", "op", "inputs", "outputs", "where", "bytes" } }
  for k, node in tape:ops() do
    note_outputs(made, k, node)
    local inputs, outputs = {}, {}
    for i, value in ipairs(node.inputs) do inputs[i] = value_text(value, made) end
    for i, value in ipairs(node.outputs) do
      outputs[i] = (value.name and value.name .. " " or "") .. shape_text(value.shape)
    end
    rows[#rows + 1] = { tostring(k), node.op, table.concat(inputs, ", "),
      "-> " .. table.concat(outputs, ", "), node.where, tostring(node.bytes) }
    total = total + node.bytes
  end
  return ("%s, %s kept\n%s\n"):format(tostring(tape), size_text(total),
    align(rows, { true, false, false, false, false, true }))
end

--- Writes a table of the operations: inputs (variables by name, results of operation 3 as #3),
--- shapes of the outputs, call sites, bytes kept.
---@param to file*|fun(text: string)|nil default: standard output
function Tape:print(to)
  if type(to) == "function" then
    to(print_text(self))
    return
  elseif not io then
    fail("print: this program has no io library; give a function that takes the text")
  elseif to ~= nil and io.type(to) ~= "file" then
    fail("print: takes an open file or a function, got %s", type(to))
  end
  (to or io.stdout):write(print_text(self))
end

--- A text in the quotes of the dot language.
local function quote(text)
  return '"' .. text:gsub('[\\"]', "\\%0"):gsub("\n", "\\n") .. '"'
end

--- The graph in Graphviz's dot language: variables and watched tensors as boxes, operations as
--- ellipses with shape and call site; constants are left out.
---
---     io.open("tape.dot", "w"):write(tape:dot())   -- then: dot -Tsvg tape.dot > tape.svg
---
---@return string
function Tape:dot()
  local lines, made, drawn = { "digraph tape {", "  node [fontname = monospace];" }, {}, {}
  local function add(form, ...) lines[#lines + 1] = "  " .. form:format(...) end
  for k, node in self:ops() do
    local shapes = {}
    for i, out in ipairs(node.outputs) do
      shapes[i], made[out.id] = shape_text(out.shape), "op" .. k
    end
    add("op%d [label = %s];", k,
      quote(node.op .. "\n" .. table.concat(shapes, ", ") .. "\n" .. node.where))
    for _, value in ipairs(node.inputs) do
      if value.source and not made[value.id] and not drawn[value.id] then
        drawn[value.id] = true
        add("v%d [shape = box, label = %s];", value.id,
          quote((value.name or "source") .. "\n" .. shape_text(value.shape)))
      end
      if made[value.id] then
        add("%s -> op%d;", made[value.id], k)
      elseif value.source then
        add("v%d -> op%d;", value.id, k)
      end
    end
  end
  lines[#lines + 1] = "}\n"
  return table.concat(lines, "\n")
end

--- What the tape keeps, by line of the user's program; the largest first. tostring gives a table.
---@class luatape.tape.memory
---@field [integer] { where: string, bytes: integer, ops: integer }
---@field total integer bytes
local Memory = { __name = "luatape.tape.memory" }

function Memory:__tostring()
  local rows = { { "where", "ops", "bytes" } }
  for i, line in ipairs(self) do
    rows[i + 1] = { line.where, tostring(line.ops), tostring(line.bytes) }
  end
  rows[#rows + 1] = { "total", "", tostring(self.total) }
  return align(rows, { false, true, true })
end

--- How many bytes each line of the program keeps for the gradients, and in how many operations.
--- Every block of memory counts once, at the line that kept it first; all of it is free after the
--- tape's gradient (or its close).
---@return luatape.tape.memory
function Tape:memory()
  local list, by_line, total = {}, {}, 0
  for _, node in self:ops() do
    local line = by_line[node.where]
    if not line then
      line = { where = node.where, bytes = 0, ops = 0 }
      by_line[node.where], list[#list + 1] = line, line
    end
    line.bytes, line.ops, total = line.bytes + node.bytes, line.ops + 1, total + node.bytes
  end
  table.sort(list, function(a, b)
    if a.bytes ~= b.bytes then return a.bytes > b.bytes end
    return a.where < b.where
  end)
  list.total = total
  return setmetatable(list, Memory)
end
