--- Data on its way to a model: tables of numbers, splits, scaling, batches, a line of progress.
--- Rows are samples: the first dimension of every tensor here.
local lt, core = ...
local arguments = core.import "luatape.arguments"

---@class luatape.data
local data = {}

local fail, within = arguments.fail, arguments.within

local function describe(value)
  return lt.is_tensor(value) and "a tensor" or value == nil and "nothing" or "a " .. type(value)
end

--- The options over their defaults; unknown ones are errors.
local function read_options(op, options, defaults)
  local result = {}
  for key, value in pairs(defaults) do result[key] = value end
  for key, value in pairs(arguments.options(op, options, defaults)) do result[key] = value end
  return result
end

local function check_boolean(op, options, name)
  if type(options[name]) ~= "boolean" then
    fail("%s: %s must be true or false, got %s", op, name, describe(options[name]))
  end
end

--- The number of rows that all tensors of the list have.
local function count_rows(op, tensors)
  if #tensors == 0 then fail("%s: takes one or more tensors", op) end
  for i = 1, #tensors do
    local t = tensors[i]
    if not lt.is_tensor(t) then
      fail("%s: argument %d must be a tensor, got %s", op, i, describe(t))
    end
    if t.ndim == 0 then fail("%s: argument %d is a 0-d tensor and has no rows", op, i) end
    if #t ~= #tensors[1] then
      fail("%s: rows differ (argument 1 has %d, argument %d has %d)", op, #tensors[1], i, #t)
    end
  end
  return #tensors[1]
end

--- Rows first..last: in the order given, or as views where there is none.
local function take_rows(tensors, order, first, last)
  local index = order and order[{ { first, last } }]
  local results = {}
  for i, t in ipairs(tensors) do
    results[i] = index and t:index_select(index, 1) or t[{ { first, last } }]
  end
  return results
end

-- ---- CSV ---------------------------------------------------------------------------------------

local csv_defaults = { header = "auto", separator = ",", dtype = "float32", skip = 0 }

local function read_csv(source, is_text, options)
  local o = read_options("csv", options, csv_defaults)
  return core.csv(source, is_text, o.header, o.separator, o.dtype, o.skip)
end

--- Reads a file of numbers into a tensor of rows x columns. Fields are decimal numbers, inf or nan,
--- with blanks or double quotes around them; lines end in LF or CR LF. Ragged rows, empty fields,
--- words and numbers too large for the dtype are errors that name file, line and column.
---@param path string a regular file
---@param options { header: "auto"|boolean, separator: string, dtype: string, skip: integer }?
---  header (default "auto"): is the first row one of names? "auto": if any field of it is a word;
---  separator (default ","); dtype (default "float32"): "float32" or "float64", rounded to nearest;
---  skip (default 0): lines to pass over before all this
---@return luatape.tensor table
---@return string[]? names of the columns, if there is a header
function data.csv(path, options) return read_csv(path, false, options) end

--- The same for text in memory; messages call it "text".
---@param text string
---@param options table? those of lt.data.csv
---@return luatape.tensor table
---@return string[]? names
function data.parse_csv(text, options) return read_csv(text, true, options) end

-- ---- Splitting and scaling ---------------------------------------------------------------------

local split_defaults = { test = 0.2, shuffle = true, seed = false }

--- Splits rows into a part for training and one for testing.
---
---     local train_x, train_y, test_x, test_y = lt.data.split(x, y, { test = 0.25, seed = 1 })
---
---@param ... luatape.tensor|table one or more tensors with equally many rows, then the options:
---  test (default 0.2): a fraction of the rows, rounded, or from 1 on their number;
---  shuffle (default true): false takes the last rows for testing;
---  seed: an integer that fixes the shuffle by itself; without it, it comes from lt.manual_seed's
---  stream
---@return luatape.tensor ... the training parts, in order, then the test parts
function data.split(...)
  local tensors = { ... }
  local options
  if #tensors > 0 and not lt.is_tensor(tensors[#tensors]) then options = table.remove(tensors) end
  options = read_options("split", options, split_defaults)
  check_boolean("split", options, "shuffle")
  if options.seed and math.type(options.seed) ~= "integer" then
    fail("split: seed must be an integer, got %s", describe(options.seed))
  end
  local rows, test = count_rows("split", tensors), options.test
  if type(test) ~= "number" then fail("split: test must be a number, got %s", describe(test)) end
  local count = math.tointeger(test < 1 and math.floor(test * rows + 0.5) or test)
  if not count or count < 1 or count >= rows then
    fail("split: test = %s does not leave rows for both parts of %d", test, rows)
  end
  local order
  if options.shuffle then
    order = options.seed and core.randperm(rows, options.seed) or lt.randperm(rows)
  end
  local train = within("split", take_rows, tensors, order, 1, rows - count)
  return table.unpack(table.move(take_rows(tensors, order, rows - count + 1, rows), 1, #tensors,
    #tensors + 1, train))
end

--- Mean and standard deviation of each column; 1 where it is constant.
local function spread(x)
  local keep = { dim = 1, keepdim = true }
  local varies = x:amax(keep):ne(x:amin(keep))
  local mean = varies:where(x:mean(keep), x[{ { 1, 1 } }])
  local std = x:std { dim = 1, keepdim = true, correction = 0 }
  return mean, varies:where(std, lt.ones_like(mean))
end

--- Brings every column to mean 0 and standard deviation 1: (x - mean) / std. A constant column
--- becomes 0. What is found on training data is to be given for test data:
---
---     local train, mean, std = lt.data.standardize(train)
---     local test = lt.data.standardize(test, mean, std)
---
---@param x luatape.tensor float, rows x ...
---@param mean luatape.tensor? by default that of the rows of x
---@param std luatape.tensor? by default that of the rows of x, divisor n; 1 for constant columns
---@return luatape.tensor scaled
---@return luatape.tensor mean 1 x ...
---@return luatape.tensor std 1 x ...
function data.standardize(x, mean, std)
  local rows = count_rows("standardize", { x })
  if (mean == nil) ~= (std == nil) then fail("standardize: takes both mean and std, or neither") end
  if mean == nil then
    if rows == 0 then fail("standardize: no rows to find mean and std of") end
    mean, std = within("standardize", spread, x)
  end
  return within("standardize", function() return (x - mean) / std end), mean, std
end

-- ---- Batches -----------------------------------------------------------------------------------

---@class luatape.data.batches
local Batches = { __name = "luatape.data.batches" }

--- One step of a generic `for`, which calls with nil first and then with what the step before gave
--- it. Loops are told apart by that value, so one object may serve several at a time, and a loop
--- that was left by `break` costs nothing.
function Batches:__call(_, previous)
  local loop
  if previous == nil then
    loop = { at = 0, order = self.shuffle and lt.randperm(self.rows) or nil }
  else
    loop = self.loops[previous]
    if not loop then fail("batches: goes into a generic for, and is not called otherwise") end
    self.loops[previous] = nil
  end
  local left = self.rows - loop.at
  if left <= 0 or (self.drop_last and left < self.batch) then return nil end
  local first = loop.at + 1
  loop.at = loop.at + math.min(left, self.batch)
  local results = take_rows(self.tensors, loop.order, first, loop.at)
  self.loops[results[1]] = loop
  return table.unpack(results)
end

--- How many batches a loop gives.
function Batches:__len()
  return self.drop_last and self.rows // self.batch or (self.rows + self.batch - 1) // self.batch
end

local batch_defaults = { batch = 64, shuffle = true, drop_last = false }

--- Batches of rows for the generic `for`. The result may be kept: each loop over it begins anew, in
--- a new order if it shuffles, drawn from the stream of lt.manual_seed. #batches is their number.
---
---     local batches = lt.data.batches { x, y, batch = 32 }
---     for epoch = 1, 10 do
---       for xb, yb in batches do ... end
---     end
---
---@param options table the tensors (equally many rows each), and the options:
---  batch (default 64): rows in a batch; shuffle (default true): false gives views, in order;
---  drop_last (default false): leaves a last batch out that is not full
---@return luatape.data.batches
function data.batches(options)
  if type(options) ~= "table" then
    fail("batches: takes a table of tensors and options, got %s", describe(options))
  end
  local tensors, named = {}, {}
  for i = 1, #options do tensors[i] = options[i] end
  for key, value in pairs(options) do
    if math.type(key) ~= "integer" or key < 1 or key > #tensors then named[key] = value end
  end
  local self = read_options("batches", named, batch_defaults)
  if math.type(self.batch) ~= "integer" or self.batch < 1 then
    fail("batches: batch must be an integer from 1 on, got %s",
      type(self.batch) == "number" and self.batch or describe(self.batch))
  end
  check_boolean("batches", self, "shuffle")
  check_boolean("batches", self, "drop_last")
  self.tensors, self.rows = tensors, count_rows("batches", tensors)
  if self.drop_last and self.rows < self.batch then
    fail("batches: drop_last leaves nothing of %d rows in batches of %d", self.rows, self.batch)
  end
  self.loops = setmetatable({}, { __mode = "k" })
  return setmetatable(self, Batches)
end

-- ---- Progress ----------------------------------------------------------------------------------

local SHOWN_EVERY = 0.1 -- seconds between two versions of a line on a terminal

---@class luatape.data.progress
---@field done integer samples counted so far
local Progress = { __name = "luatape.data.progress" }
Progress.__index = Progress

--- Seconds since the start.
---@return number
function Progress:elapsed() return core.clock() - self.start end

--- Samples per second so far.
---@return number
function Progress:rate() return self.done / math.max(self:elapsed(), 1e-9) end

--- The text, the speed, and the time left.
local function report(self, form, ...)
  local left = self:elapsed() * (self.total / math.max(self.done, 1) - 1)
  return string.format(form, ...)
    .. string.format("  %.0f samples/s  %.1f s left", self:rate(), math.max(left, 0))
end

--- Writes over the line that the terminal shows.
local function rewrite(self, text, ending)
  io.stdout:write("\r", text, string.rep(" ", self.width - #text), ending)
  io.stdout:flush()
  self.width = #ending > 0 and 0 or #text
end

--- Counts samples. A terminal shows the text (string.format's arguments), samples per second and
--- the time left, at most ten times a second; where output goes elsewhere, nothing is printed.
---@param samples integer
---@param form string
function Progress:step(samples, form, ...)
  self.done = self.done + samples
  local now = core.clock()
  if not self.terminal or now - self.shown < SHOWN_EVERY then return end
  self.shown = now
  rewrite(self, report(self, form, ...), "")
end

--- Reports at a milestone, as at the end of an epoch: in a line of its own where output goes to a
--- file; a terminal's line stays where it is, and ends when all samples are counted.
---@param form string
function Progress:line(form, ...)
  local text = report(self, form, ...)
  if self.terminal then
    rewrite(self, text, self.done >= self.total and "\n" or "")
  else
    io.stdout:write(text, "\n")
    io.stdout:flush()
  end
end

--- A line on standard output that tells how far a long loop over samples is.
---
---     local progress = lt.data.progress(epochs * #x)
---     ... progress:step(#xb, "loss %.4f", loss:item())   -- each batch
---     ... progress:line("epoch %d  loss %.4f", epoch, mean)   -- each epoch
---
---@param total integer samples that will be counted
---@return luatape.data.progress
function data.progress(total)
  if type(total) ~= "number" or total < 0 then
    fail("progress: takes the number of samples to come, got %s", describe(total))
  end
  local now = core.clock()
  return setmetatable({ total = total, done = 0, start = now, shown = 0, width = 0,
    terminal = core.is_terminal() }, Progress)
end

return data
