-- lt.data: the CSV reader against Lua's own numbers and against broken text; splits, scaling and
-- batches against what they promise about rows.
local lt = require "luatape"

local data = lt.data

---Calls f(...), which must fail, and returns the message without the position in front.
local function message(f, ...)
  local ok, err = pcall(f, ...)
  assert.is_false(ok, "no error")
  local text = err:match "^[^:]+:%d+: (.*)$"
  assert.is_truthy(text, "no position in: " .. err)
  return text
end

---The numbers first..last as a tensor of one column, or of `columns` equal ones.
local function rows(first, last, columns)
  local list = {}
  for i = first, last do
    list[#list + 1] = {}
    for c = 1, columns or 1 do list[#list][c] = i end
  end
  return lt.tensor(list)
end

local function sorted(t)
  local list = t:reshape(t:numel()):totable()
  table.sort(list)
  return list
end

local function with_file(text, f)
  local path = os.tmpname()
  local file = assert(io.open(path, "wb"))
  file:write(text)
  file:close()
  local ok, err = pcall(f, path)
  os.remove(path)
  if not ok then error(err, 0) end
end

describe("lt.data.csv", function()
  it("reads rows and columns from a file", function()
    with_file("1,2,3\n4,5,6\n", function(path)
      local t, names = data.csv(path)
      assert.same({ { 1, 2, 3 }, { 4, 5, 6 } }, t:totable())
      assert.equal("float32", t.dtype)
      assert.is_nil(names)
    end)
  end)

  it("reads the same numbers as Lua", function()
    local random, bits = math.random, string.unpack
    math.randomseed(1, 2)
    local texts = { "0", "-0", "+7", "1.", ".5", "00012", "1e0", "1E+2", "1e-02", "4.9e-324",
      "2.4e-324", "2.5e-324", "1.7976931348623157e308", "9007199254740993",
      "9007199254740992.99999999999999999", "1" .. ("0"):rep(400) .. "e-400",
      "9007199254740993." .. ("0"):rep(900) .. "1", "0." .. ("0"):rep(400) .. "1e401",
      "0e999999999999999999999",
      "123456789012345678901234567890", "1e-99999999999999999999", ("9"):rep(1000) .. "e-1000" }
    while #texts < 3000 do
      local v = bits("<d", string.pack("<i8", random(0)))
      if v == v and v ~= math.huge and v ~= -math.huge then
        texts[#texts + 1] = ("%.17g"):format(v)
        texts[#texts + 1] = ("%." .. random(0, 25) .. "g"):format(v)
        texts[#texts + 1] = ("%.6f"):format(random() * 1000)
        texts[#texts + 1] = ("%d.%de%d"):format(random(0) >> 1, random(0) >> random(1, 63),
          random(-320, 280))
      end
    end
    local t = data.parse_csv(table.concat(texts, "\n"), { dtype = "float64" })
    for i, text in ipairs(texts) do
      local want, got = tonumber(text .. (text:find "[.eE]" and "" or ".0")), t:get(i, 1)
      assert.equal(("%a"):format(want), ("%a"):format(got), text)
    end
  end)

  it("rounds once to float32: halves between two floats go to the even one", function()
    local cases = {
      { "16777217", 16777216 }, -- a half: even
      { "16777219", 16777220 },
      { "16777217.000000000000000001", 16777218 }, -- above the half by less than a double can tell
      { "16777216.999999999999999999", 16777216 },
      { "6.862309574573241e+19", 6.8623093546709156e+19 }, -- so near that the double is the half
      { "1.2869819623967e+34", 1.2869819004996981e+34 },
      { "1e-46", 0 },
      { "0.7e-45", 0 },
      { "0.8e-45", 2.0 ^ -149 },
      { "340282356779733661637539395458142568448" }, -- half-way to the first that there is not
      { "340282356779733661637539395458142568447.9", (2 - 2.0 ^ -23) * 2.0 ^ 127 },
    }
    for _, case in ipairs(cases) do
      if case[2] then
        assert.equal(case[2], data.parse_csv(case[1]):item(), case[1])
      else
        assert.matches("too large for float32", message(data.parse_csv, case[1]))
      end
    end
  end)

  it("reads inf and nan in any case", function()
    local t = data.parse_csv "inf,-INF,Infinity,+infinity,NaN,-nan"
    local list = t:totable()[1]
    assert.same({ math.huge, -math.huge, math.huge, math.huge }, { table.unpack(list, 1, 4) })
    assert.is_true(list[5] ~= list[5] and list[6] ~= list[6])
  end)

  it("passes over blanks, quotes, CR LF, a byte order mark and blank lines at the end", function()
    local t = data.parse_csv "\xef\xbb\xbf 1 ,\t2\r\n\"3\",\" 4 \"\r\n\r\n  \n\n"
    assert.same({ { 1, 2 }, { 3, 4 } }, t:totable())
    assert.same({ { 1, 2 } }, data.parse_csv("1,2"):totable())
  end)

  it("tells a header by its words, or as it is told", function()
    local t, names = data.parse_csv 'width, height ,"a ""b"", c"\n1,2,3'
    assert.same({ "width", "height", 'a "b", c' }, names)
    assert.same({ { 1, 2, 3 } }, t:totable())
    t, names = data.parse_csv("1,2\n3,4", { header = true })
    assert.same({ "1", "2" }, names)
    assert.same({ { 3, 4 } }, t:totable())
    assert.equal("csv: text:1: column 1: 'a' is not a number",
      message(data.parse_csv, "a,2\n3,4", { header = false }))
    t, names = data.parse_csv("1,,x\n3,4,5")
    assert.same({ "1", "", "x" }, names)
    assert.same({ 1, 3 }, t.shape)
  end)

  it("takes other separators, and passes over lines", function()
    assert.same({ { 1, 2 } }, data.parse_csv("1;2", { separator = ";" }):totable())
    assert.same({ { 1, 2 } }, data.parse_csv("1\t2", { separator = "\t" }):totable())
    assert.same({ { 1, 2 } }, data.parse_csv("1 2", { separator = " " }):totable())
    assert.same({ { 3 } }, data.parse_csv("# a\n# b\n3", { skip = 2 }):totable())
  end)

  it("names file, line and column of what it does not take", function()
    local cases = {
      { "1,2\n3,abc", ":2: column 2: 'abc' is not a number" },
      { "1,2\n3,4,5", ":2: 3 columns, the first row has 2" },
      { "1,2,3\n3", ":2: 1 columns, the first row has 3" },
      { "a,b\n1,2\n1,2,3", ":3: 3 columns, the header has 2" },
      { "1,2\n3,\n", ":2: column 2 is empty" },
      { "1,2\n3,\"\"\n", ":2: column 2 is empty" },
      { ",1", ":1: column 1 is empty" },
      { "1,2,\n3,4,", ":1: column 3 is empty" },
      { "1,2\n\n3,4", ":2: an empty line" },
      { "\n1", ":1: an empty line" },
      { "1\n1e400", ":2: column 1: '1e400' is too large for float32" },
      { "1\n-1e39", ":2: column 1: '-1e39' is too large for float32" },
      { "1\n2\0", ":2: a zero byte; this is not text" },
      { "1\n\"2", ":2: column 1: '\"2' is not a number" },
      { "1\n\"2\"3", ":2: column 1: '\"2\"3' is not a number" },
      { "1\n1\r2", ":2: column 1: '1?2' is not a number" },
      { "1\n" .. ("x"):rep(99), ":2: column 1: '" .. ("x"):rep(32) .. "...' is not a number" },
      { "", ": no rows, it is empty" },
      { " \r\n\n", ": no rows, it is empty" },
      { "a,b\n", ": no rows after the header" },
      { "1,2," .. ("3,"):rep(1000) .. "\n" .. ("\n1"):rep(1000), ":1: column 1003 is empty" },
    }
    for _, case in ipairs(cases) do
      with_file(case[1], function(path)
        assert.equal("csv: " .. path .. case[2], message(data.csv, path))
      end)
      assert.equal("csv: text" .. case[2], message(data.parse_csv, case[1]))
    end
    for _, word in ipairs { ".", "-", "+", "1e", "1e+", "1..2", "1.2.3", "--1", "- 1", "0x10",
      "1_0", "infi", "nano", "1f", "1 2", "e5", "1,5e" } do
      assert.matches("is not a number", message(data.parse_csv, "1\n" .. word, { separator = ";" }))
    end
  end)

  it("does not allocate for rows that are not there", function()
    local before = lt.memory().peak
    local text = ("1,"):rep(20000) .. "1\n" .. ("1\n"):rep(20000)
    assert.equal("csv: text:2: 1 columns, the first row has 20001", message(data.parse_csv, text))
    assert.is_true(lt.memory().peak - before < 1e6)
  end)

  it("refuses what is no regular file", function()
    assert.equal("csv: cannot open '/nonexistent/x.csv': No such file or directory",
      message(data.csv, "/nonexistent/x.csv"))
    assert.equal("csv: 'spec' is not a regular file", message(data.csv, "spec"))
    assert.equal("csv: '/dev/null' is not a regular file", message(data.csv, "/dev/null"))
    assert.equal("csv: a zero byte in the path", message(data.csv, "a\0b"))
  end)

  it("checks its options", function()
    local function with(options) return message(data.parse_csv, "1", options) end
    assert.equal("csv: unknown option 'sep'; it has dtype, header, separator, skip",
      with { sep = ";" })
    assert.equal("csv: options must be a table, got a string", with ";")
    assert.equal('csv: header must be "auto", true or false', with { header = "yes" })
    assert.equal("csv: separator must be a string of one character", with { separator = "::" })
    assert.matches("^csv: separator cannot be", with { separator = "e" })
    assert.matches("^csv: separator cannot be", with { separator = "\n" })
    assert.equal("csv: dtype must be float32 or float64, not int64", with { dtype = "int64" })
    assert.equal("csv: skip must not be negative", with { skip = -1 })
    assert.equal("csv: skip must be an integer", with { skip = 0.5 })
    assert.equal("csv: text: no rows after the 1 lines to skip", with { skip = 5 })
    assert.equal("csv: the path must be a string, got a number", message(data.csv, 1))
  end)

  it("answers any text with a table or with an error of its own", function()
    math.randomseed(3, 4)
    local pieces = { ",", "\n", "\r\n", "\"", " ", ".", "-", "e", "inf", "nan", "1", "23", "456",
      "\0", "x", "\xff", ",1", "\n1,2" }
    local headers = { "auto", true, false }
    for _ = 1, 3000 do
      local list = {}
      for i = 1, math.random(0, 12) do list[i] = pieces[math.random(#pieces)] end
      local text = table.concat(list)
      local ok, result = pcall(data.parse_csv, text, { header = headers[math.random(3)] })
      if ok then assert.equal(2, result.ndim)
      else assert.matches(": csv: text:", result, 1, true) end
    end
  end)
end)

describe("lt.data.split", function()
  it("gives every row to one of the parts, and keeps tensors together", function()
    local a, b, c, d = data.split(rows(1, 10), rows(1, 10, 2), { test = 3 })
    assert.same({ { 7, 1 }, { 7, 2 }, { 3, 1 }, { 3, 2 } }, { a.shape, b.shape, c.shape, d.shape })
    assert.same({ 1, 2, 3, 4, 5, 6, 7, 8, 9, 10 }, sorted(lt.cat { a, c }))
    assert.is_true(b[{ {}, { 1, 1 } }]:eq(a):all():item())
    assert.is_true(d[{ {}, { 2, 2 } }]:eq(c):all():item())
  end)

  it("takes a fraction, a fifth by default", function()
    local _, test = data.split(rows(1, 10))
    assert.equal(2, #test)
    _, test = data.split(rows(1, 10), { test = 0.25 })
    assert.equal(3, #test)
  end)

  it("takes the last rows where it does not shuffle", function()
    local train, test = data.split(rows(1, 5), { test = 2, shuffle = false })
    assert.same({ { 1 }, { 2 }, { 3 } }, train:totable())
    assert.same({ { 4 }, { 5 } }, test:totable())
  end)

  it("is fixed by a seed, without touching the stream of the others", function()
    lt.manual_seed(1)
    local a = lt.rand(3):totable()
    lt.manual_seed(1)
    local first = data.split(rows(1, 50), { seed = 9 }):totable()
    assert.same(a, lt.rand(3):totable())
    assert.same(first, data.split(rows(1, 50), { seed = 9 }):totable())
    assert.is_not.same(first, data.split(rows(1, 50), { seed = 10 }):totable())
    lt.manual_seed(9)
    assert.same(first, data.split(rows(1, 50)):totable())
  end)

  it("names what is wrong", function()
    local x = rows(1, 4)
    assert.equal("split: takes one or more tensors", message(data.split))
    assert.equal("split: rows differ (argument 1 has 4, argument 2 has 3)",
      message(data.split, x, rows(1, 3)))
    assert.equal("split: argument 1 is a 0-d tensor and has no rows",
      message(data.split, lt.tensor(1)))
    assert.equal("split: argument 1 must be a tensor, got a number", message(data.split, 1, x))
    assert.equal("split: options must be a table, got a number", message(data.split, x, 1))
    assert.equal("split: unknown option 'size'; it has seed, shuffle, test",
      message(data.split, x, { size = 1 }))
    for _, test in ipairs { 0, -1, 4, 1.5, 0.01, 0.99, 0 / 0, math.huge, -math.huge } do
      assert.matches("does not leave rows for both parts of 4",
        message(data.split, x, { test = test }))
    end
    assert.equal("split: test must be a number, got a string",
      message(data.split, x, { test = "1" }))
    assert.equal("split: shuffle must be true or false, got a number",
      message(data.split, x, { shuffle = 1 }))
    assert.equal("split: seed must be an integer, got a string",
      message(data.split, x, { seed = "a" }))
  end)
end)

describe("lt.data.standardize", function()
  it("brings columns to mean 0 and deviation 1, constant ones to 0", function()
    local x = lt.tensor({ { 1, 0.1, -5 }, { 2, 0.1, 5 }, { 6, 0.1, 0 } }, { dtype = "float64" })
    local y, mean, std = data.standardize(x)
    assert.same({ 0, 0, 0 }, y[{ {}, 2 }]:totable())
    assert.same({ 3, 0.1, 0 }, mean[1]:totable())
    assert.is_true(math.abs(std:get(1, 1) - math.sqrt(14 / 3)) < 1e-14)
    assert.equal(1, std:get(1, 2))
    for _, c in ipairs { 1, 3 } do
      local column = y[{ {}, c }]
      assert.is_true(math.abs(column:sum():item()) < 1e-14)
      assert.is_true(math.abs((column * column):mean():item() - 1) < 1e-14)
    end
  end)

  it("scales other rows in the same way", function()
    local _, mean, std = data.standardize(lt.tensor { { 0 }, { 4 } })
    assert.same({ { 3 } }, data.standardize(lt.tensor { { 8 } }, mean, std):totable())
    assert.equal("standardize: takes both mean and std, or neither",
      message(data.standardize, lt.tensor { { 8 } }, mean))
  end)
end)

describe("lt.data.batches", function()
  it("gives every row once, in step across tensors", function()
    local x, y = rows(1, 10, 2), rows(1, 10)
    local seen, sizes = {}, {}
    for xb, yb in data.batches { x, y, batch = 4 } do
      sizes[#sizes + 1] = #xb
      assert.is_true(xb:eq(yb):all():item())
      for i = 1, #yb do seen[#seen + 1] = yb:get(i, 1) end
    end
    assert.same({ 4, 4, 2 }, sizes)
    assert.is_not.same({ 1, 2, 3, 4, 5, 6, 7, 8, 9, 10 }, seen)
    table.sort(seen)
    assert.same({ 1, 2, 3, 4, 5, 6, 7, 8, 9, 10 }, seen)
  end)

  local function orders(batches, loops)
    local list = {}
    for i = 1, loops do
      list[i] = {}
      for xb in batches do
        for j = 1, #xb do table.insert(list[i], xb:get(j, 1)) end
      end
    end
    return list
  end

  it("draws a new order for each loop, from the seed's stream", function()
    lt.manual_seed(5)
    local first = orders(data.batches { rows(1, 30), batch = 7 }, 2)
    assert.is_not.same(first[1], first[2])
    lt.manual_seed(5)
    assert.same(first, orders(data.batches { rows(1, 30), batch = 30 }, 2))
    lt.manual_seed(5)
    assert.same(first[1], lt.randperm(30):to("float32"):totable())
  end)

  it("gives views in order where it does not shuffle", function()
    local x = rows(1, 5)
    for xb in data.batches { x, batch = 2, shuffle = false } do xb[{}] = xb * 10 end
    assert.same({ { 10 }, { 20 }, { 30 }, { 40 }, { 50 } }, x:totable())
  end)

  it("leaves a short last batch out if told so", function()
    local batches = data.batches { rows(1, 10), batch = 4, drop_last = true }
    assert.equal(8, #orders(batches, 1)[1])
    assert.equal(2, #batches)
    assert.equal(3, #data.batches { rows(1, 10), batch = 4 })
    assert.equal(1, #data.batches { rows(1, 10) })
  end)

  it("serves loops within loops, and again after a break", function()
    local batches = data.batches { rows(1, 3), batch = 1, shuffle = false }
    local pairs_seen = {}
    for a in batches do
      for b in batches do
        table.insert(pairs_seen, a:item() * 10 + b:item())
        if b:item() == 2 then break end
      end
    end
    assert.same({ 11, 12, 21, 22, 31, 32 }, pairs_seen)
  end)

  it("names what is wrong", function()
    local x = rows(1, 4)
    assert.equal("batches: takes a table of tensors and options, got a tensor",
      message(data.batches, x))
    assert.equal("batches: takes one or more tensors", message(data.batches, {}))
    assert.equal("batches: rows differ (argument 1 has 4, argument 2 has 5)",
      message(data.batches, { x, rows(1, 5) }))
    assert.equal("batches: argument 2 must be a tensor, got a table",
      message(data.batches, { x, {} }))
    assert.equal("batches: unknown option 'batch_size'; it has batch, drop_last, shuffle",
      message(data.batches, { x, batch_size = 2 }))
    assert.equal("batches: batch must be an integer from 1 on, got 0",
      message(data.batches, { x, batch = 0 }))
    assert.equal("batches: batch must be an integer from 1 on, got a string",
      message(data.batches, { x, batch = "2" }))
    assert.equal("batches: shuffle must be true or false, got a number",
      message(data.batches, { x, shuffle = 0 }))
    assert.equal("batches: drop_last leaves nothing of 4 rows in batches of 64",
      message(data.batches, { x, drop_last = true }))
    assert.equal("batches: goes into a generic for, and is not called otherwise",
      message(data.batches { x }, nil, x))
  end)
end)

describe("lt.data.progress", function()
  it("counts samples and seconds", function()
    local progress = data.progress(10)
    progress:step(4, "")
    progress:step(3, "")
    assert.equal(7, progress.done)
    local elapsed = progress:elapsed()
    assert.is_true(elapsed > 0 and elapsed < 60 and progress:elapsed() >= elapsed)
    assert.is_true(progress:rate() > 7 / 60)
    assert.equal("progress: takes the number of samples to come, got a string",
      message(data.progress, "10"))
  end)
end)
