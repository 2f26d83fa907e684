-- The luatape program seen from the shell: its options, loaders, exit codes, Ctrl-C and REPL.
-- Every run is a process of its own with files for its streams, and `timeout` against hangs.

local program = os.getenv "LUATAPE_PROGRAM" or (os.getenv "LUATAPE_BUILD" or "build") .. "/luatape"

local directory

local function path(name) return directory .. "/" .. name end

local function write(name, text)
  local file = assert(io.open(path(name), "wb"))
  file:write(text)
  file:close()
  return path(name)
end

local function read(name)
  local file = io.open(name, "rb")
  if not file then return nil end
  local text = file:read "a"
  file:close()
  return text
end

local function quote(word) return "'" .. word:gsub("'", [['\'']]) .. "'" end

---Runs a shell command; `environment` ("A=b C=d") is added to one without the user's settings.
local function shell(command, stdin, environment)
  local line = ("env -u LUA_INIT -u LUA_INIT_5_4 -u LUA_PATH -u LUA_PATH_5_4 -u XDG_STATE_HOME "
    .. "HOME=%s TERM=xterm LC_ALL=C %s timeout 30 %s < %s > %s 2> %s"):format(
    quote(directory), environment or "", command,
    stdin and quote(write("in", stdin)) or "/dev/null", quote(path "out"), quote(path "err"))
  local _, _, code = os.execute(line)
  return { code = code, out = read(path "out"), err = read(path "err") }
end

---Runs the program. `words`: its arguments, and as fields stdin and environment.
local function run(words)
  local command = { quote(program) }
  for _, word in ipairs(words) do command[#command + 1] = quote(word) end
  return shell(table.concat(command, " "), words.stdin, words.environment)
end

local function prints(expected, words)
  local r = run(words)
  assert.equal("", r.err)
  assert.equal(expected, r.out)
  assert.equal(0, r.code)
end

local function fails(pattern, words)
  local r = run(words)
  assert.matches(pattern, r.err)
  assert.equal(1, r.code)
  return r
end

---Source whose process gets SIGINT from outside soon after it starts to run `work`.
local function interrupted(work)
  return 'local killer = io.popen "sleep 0.3; kill -INT $PPID" ' .. work .. " killer:close()"
end

describe("the luatape program", function()
  setup(function()
    assert(read(program), "build the program first: " .. program)
    directory = os.tmpname()
    os.remove(directory)
    assert(os.execute("mkdir " .. quote(directory)))
  end)
  teardown(function() os.execute("rm -r " .. quote(directory)) end)

  describe("options", function()
    it("-e runs a statement, attached or apart, in order", function()
      prints("1\n2\n3\n", { "-e", "print(1) x = 2", "-eprint(x)", "-e", "print(3)" })
    end)
    it("-e alone does not read stdin", function()
      prints("", { "-e", "x = 1", stdin = "print 'from stdin'" })
    end)
    it("-l requires a module into a global, also under another name", function()
      write("some.lua", "return { answer = 42 }")
      local environment = "LUA_PATH=" .. quote(path "?.lua")
      prints("42\n", { "-l", "some", "-e", "print(some.answer)", environment = environment })
      prints("42 nil\n", { "-ls=some", "-e", "print(s.answer .. ' ' .. tostring(some))",
        environment = environment })
    end)
    it("-l reports a module that is not there", function()
      fails("^luatape: module 'nosuch' not found:.*stack traceback:", { "-l", "nosuch" })
    end)
    it("-v prints the versions and ends", function()
      local r = run { "-v", stdin = "print 'from stdin'" }
      assert.equal(0, r.code)
      assert.matches("^luatape %d", r.out)
      assert.matches("Lua 5%.4", r.out)
      assert.not_matches("stdin", r.out)
    end)
    it("-W turns warnings on", function()
      assert.equal("Lua warning: careful\n", run({ "-W", "-e", "warn 'careful'" }).err)
      assert.equal("", run({ "-e", "warn 'careful'" }).err)
    end)
    it("unknown options and missing arguments print the usage", function()
      fails("^luatape: unrecognized option '%-x'\nusage: luatape ", { "-x" })
      fails("^luatape: unrecognized option '%-%-halp'\nusage: ", { "--halp" })
      fails("^luatape: unrecognized option '%-iv'\nusage: ", { "-iv" })
      fails("^luatape: '%-e' needs argument\nusage: ", { "-e" })
      fails("^luatape: '%-l' needs argument\nusage: ", { "-l", "-v" })
    end)
    it("--help shows the usage and the names, or the reference of one", function()
      local all = run { "--help" }
      assert.equal("", all.err)
      assert.matches("^usage: luatape .*\n  %-%-help %[name%].*\nReductions\n  all amax amin ", all.out)
      local one = run { "--help", "conv2d", "ignored" }
      assert.equal(0, one.code)
      assert.matches("^lt%.conv2d%(x, weight, bias, ", one.out)
      assert.matches("\n    lt%.conv2d%(lt%.randn%(2, 3, 5, 4%), .* %-%-> float32 2x4x3x3\n$", one.out)
      fails("^luatape: help: nothing is named 'nosuch'", { "--help", "nosuch" })
    end)
    it("LUA_INIT runs first, text or @file; the versioned name wins; -E ignores both", function()
      local file = write("init.lua", "print 'from a file'")
      prints("init\nmain\n", { "-e", "print 'main'", environment = [[LUA_INIT="print 'init'"]] })
      prints("from a file\nmain\n", { "-e", "print 'main'", environment = "LUA_INIT=@" .. file })
      prints("five four\n", { "-e", "", environment =
        [[LUA_INIT="print 'init'" LUA_INIT_5_4="print 'five four'"]] })
      prints("main\n", { "-E", "-e", "print 'main'", environment = [[LUA_INIT="print 'init'"]] })
      fails("^luatape: LUA_INIT:1: ", { "-e", "print 'main'", environment = "LUA_INIT=')'" })
    end)
    it("-E ignores LUA_PATH", function()
      local show = { "-e", "print(package.path:find('/marked/?.lua', 1, true) ~= nil)",
        environment = "LUA_PATH='/marked/?.lua'" }
      prints("true\n", show)
      table.insert(show, 1, "-E")
      prints("false\n", show)
    end)
  end)

  describe("scripts", function()
    it("get their arguments as ... and in arg, the program and its options below 0", function()
      local file = write("args.lua", "print(...) print(arg[0], arg[1], #arg, arg[-1], arg[-3])")
      prints(("a\t-b\n%s\ta\t2\tx = 1\t%s\n"):format(file, program),
        { "-e", "x = 1", file, "a", "-b" })
    end)
    it("take further words after --, even one that looks like an option", function()
      local file = write("args.lua", "print(arg[0], ...)")
      prints(file .. "\tv\n", { "--", file, "v" })
      fails("^luatape: cannot open %-v", { "--", "-v" })
    end)
    it("are read from stdin with - and without a name", function()
      prints("a\tb\n", { "-", "a", "b", stdin = "print(...)" })
      prints("1\n", { stdin = "print(1)" })
      fails("^luatape: stdin:1: no", { stdin = "error 'no'" })
    end)
    it("may begin with a #! line", function()
      local source = "#!/usr/bin/env luatape\nprint(debug.getinfo(1, 'l').currentline)\n"
      prints("2\n", { write("shebang", source) })
    end)
    it("find no global of ours, and luatape by require", function()
      local file = write("globals.lua", "print(lt, luatape, type(require 'luatape'.version))")
      prints("nil\tnil\tfunction\n", { file })
      prints("nil\tnil\tfunction\n", { "-e", "local _ = lt", file })
    end)
    it("run under the generational collector", function()
      prints("generational\n", { "-e", "print(collectgarbage 'incremental')" })
    end)
    it("that do not exist are an error", function()
      fails("^luatape: cannot open " .. path "nosuch%.lua", { path "nosuch.lua" })
    end)
  end)

  describe("errors and exit codes", function()
    it("a failing script: message, traceback, 1", function()
      local file = write("fail.lua", "local function f() error 'broken' end\nf()\n")
      local r = fails("^luatape: [^\n]*fail%.lua:1: broken\nstack traceback:\n", { file })
      assert.matches("fail%.lua:2: in main chunk", r.err)
      assert.equal("", r.out)
    end)
    it("a syntax error: message, 1", function()
      fails("^luatape: [^\n]*syntax%.lua:1: unexpected symbol", { write("syntax.lua", ")") })
    end)
    it("error objects are shown by __tostring, or by their type", function()
      local object = "setmetatable({}, { __tostring = function() return 'my error' end })"
      fails("^luatape: my error\n$", { "-e", "error(" .. object .. ")" })
      fails("^luatape: %(error object is a table value%)\n", { "-e", "error {}" })
      fails("^luatape: %(error object is a nil value%)\n", { "-e", "error()" })
    end)
    it("os.exit says the code", function()
      assert.equal(7, run({ "-e", "os.exit(7)" }).code)
      assert.equal(0, run({ "-e", "os.exit(true, true)" }).code)
      assert.equal(1, run({ "-e", "os.exit(false)" }).code)
    end)
    it("an error ends the run: no later option, no script", function()
      assert.equal("", fails("first", { "-e", "error 'first'", "-e", "print 'second'" }).out)
      local script = write("second.lua", "print 'second'")
      assert.equal("", fails("first", { "-e", "error 'first'", script }).out)
    end)
  end)

  describe("precompiled chunks are refused", function()
    local refused = "attempt to load a binary chunk"
    local bytecode = string.dump(load "print 'ran'")
    local function refuses(words)
      assert.equal("", fails(refused, words).out)
    end
    it("as script, with or without a #! line, and on stdin", function()
      refuses { write("chunk.luac", bytecode) }
      refuses { write("shebang.luac", "#!/usr/bin/env luatape\n" .. bytecode) }
      refuses { stdin = bytecode }
      refuses { "-", stdin = bytecode }
    end)
    it("in LUA_INIT", function()
      refuses { "-e", "", environment = "LUA_INIT=@" .. quote(write("chunk.luac", bytecode)) }
    end)
    it("by require and -l", function()
      write("compiled.lua", bytecode)
      local environment = "LUA_PATH=" .. quote(path "?.lua")
      refuses { "-l", "compiled", environment = environment }
      fails("error loading module 'compiled' from file '[^\n]*compiled%.lua':\n\t[^\n]*" .. refused,
        { "-e", "require 'compiled'", environment = environment })
    end)
    it("by load, loadfile and dofile, whatever the mode says", function()
      local file = write("chunk.luac", bytecode)
      local r = run { stdin = ([[
        local chunk, file = string.dump(load "print 'ran'"), %q
        for _, mode in ipairs { false, "t", "b", "bt" } do
          print(load(chunk, "c", mode or nil))
          print(loadfile(file, mode or nil))
        end
        local parts = { chunk:sub(1, 5), chunk:sub(6) }
        print(load(function() return table.remove(parts, 1) end))
        print(pcall(dofile, file))
      ]]):format(file) }
      assert.equal("", r.err)
      local lines = 0
      for line in r.out:gmatch "[^\n]+" do
        lines = lines + 1
        assert.matches(refused, line)
      end
      assert.equal(10, lines)
    end)
  end)

  describe("the loaders are those of the manual otherwise", function()
    it("load", function()
      prints("1 2 3 true false\n", { stdin = [[
        x = 1
        local parts = { "return ", "3" }
        print(load "return x"() .. " " .. load("return x", "c", "bt", { x = 2 })() .. " "
          .. load(function() return table.remove(parts, 1) end)() .. " "
          .. tostring(load("x", "=c") == nil) .. " "
          .. tostring((pcall(load("return x", "c", "t", nil))))) -- _ENV is that nil
      ]] })
    end)
    it("load names chunk and line in its errors", function()
      prints("nil\tc:1: syntax error near <eof>\n", { "-e", "print(load('x', '=c'))" })
      prints("nil\tattempt to load a text chunk (mode is '')\n",
        { "-e", "print(load('x=1', '=c', 'b'))" })
      local place = "^luatape: %(command line%):1: "
      fails(place .. "bad argument #1 to 'load' %(function expected", { "-e", "load(nil)" })
      fails(place .. "bad argument #3 to 'load' %(string expected", { "-e", "load('', 'c', {})" })
    end)
    it("loadfile and dofile", function()
      local file = write("values.lua", "coroutine.yield(x) return 2, 3")
      prints("5\n", { stdin = ([[
        local chunk = loadfile(%q, "t", { x = 5, coroutine = coroutine })
        print(coroutine.wrap(chunk)())
      ]]):format(file) })
      prints("4\n2\t3\n", { stdin = ([[
        x = 4
        local f = coroutine.wrap(function() return dofile %q end)
        print(f())
        print(f())
      ]]):format(file) })
      prints("7\n", { "-e", "print(dofile())", stdin = "return 7" })
      fails("cannot open [^\n]*nosuch", { "-e", ("dofile %q"):format(path "nosuch") })
    end)
    it("require", function()
      write("named.lua", "return { name = select(1, ...), file = select(2, ...) }")
      prints("named\t" .. path "named.lua" .. "\ttrue\n", {
        "-e", "local m, file = require 'named' print(m.name, file, m.file == file)",
        environment = "LUA_PATH=" .. quote(path "?.lua") })
      fails("no field package.preload%['nosuch'%]\n\tno file '/a/nosuch%.lua'\n",
        { "-e", "require 'nosuch'", environment = "LUA_PATH=/a/?.lua" })
      fails("'package.path' must be a string", { "-e", "package.path = nil require 'nosuch'" })
    end)
    it("require finds the built-in luatape, not a file of that name", function()
      write("luatape.lua", "return 'a file'")
      prints("table\n", { "-e", "print(type(require 'luatape'))",
        environment = "LUA_PATH=" .. quote(path "?.lua") })
    end)
  end)

  describe("Ctrl-C", function()
    local function stops(work)
      local started = os.time()
      local r = run { write("interrupted.lua", interrupted(work)) }
      assert.matches("^luatape: [^\n]*interrupted!\nstack traceback:\n", r.err)
      assert.equal(1, r.code)
      assert.is_true(os.time() - started < 20)
    end
    local square = "local lt = require 'luatape' local x = lt.randn(2000, 2000) "
    it("stops a Lua loop", function() stops "while true do end" end)
    it("stops C work", function()
      stops(square .. "while true do x:matmul(x) end")
    end)
    it("stops C work whose errors are caught", function()
      stops(square .. "while true do pcall(x.matmul, x, x) end")
    end)
    it("a second one kills what did not stop", function()
      local r = run { "-e", [[
        killer = io.popen "sleep 0.3; kill -INT $PPID; sleep 0.5; kill -INT $PPID"
        coroutine.wrap(function() while true do end end)()]] }
      assert.equal("", r.err)
      assert.equal(128 + 2, r.code)
    end)
    it("in the REPL ends the chunk only, and leaves nothing behind", function()
      local first = interrupted "while true do end"
      local r = run { "-i", stdin = first .. "\nprint(lt.randn(2, 2) ~= nil)\n" }
      assert.matches("^interrupted!\nstack traceback:\n", r.err)
      assert.not_matches("interrupted!.*interrupted!", r.err)
      assert.matches("true", r.out)
      assert.equal(0, r.code)
    end)
  end)

  describe("the REPL", function()
    local function repl(input)
      local r = run { "-i", stdin = input }
      assert.equal(0, r.code)
      local banner, rest = r.out:match "^([^\n]*)\n(.*)$"
      assert.matches("^luatape %d.*Lua 5%.4", banner)
      return rest, r.err
    end
    it("prints the values of expressions and runs statements", function()
      assert.equal("> 2\n> > 5\n> a\tnil\tb\n> \n", repl "1 + 1\nx = 5\nx\n'a', nil, 'b'\n")
    end)
    it("reads on while a chunk is not finished", function()
      assert.equal("> >> >> 1\n2\n> \n", (repl "for i = 1, 2 do\nprint(i)\nend\n"))
      assert.equal("> >> 7\n> \n", (repl "3 +\n4\n"))
      assert.equal("> >> 5\n> \n", (repl "= 3 +\n2\n"))
    end)
    it("goes on after errors, and after the end of an unfinished chunk", function()
      local out, err = repl "error 'one'\n)\nprint 'still here'\nfor\n"
      assert.equal("> > > still here\n> >> > \n", out)
      assert.matches("^stdin:1: one\nstack traceback:\n", err)
      assert.matches("\nstdin:1: unexpected symbol near '%)'\nstdin:1: <name> expected", err)
    end)
    it("prints through the global print and reports its errors", function()
      local own = "print = function(x) io.write('got ', x, '\\n') end\n"
      assert.equal("> > got 6\n> \n", (repl(own .. "6\n")))
      local _, err = repl "print = nil\n6\n"
      assert.matches("attempt to call a nil value", err)
    end)
    it("prompts as _PROMPT and _PROMPT2 say", function()
      assert.equal("> A B C \n", (repl "_PROMPT, _PROMPT2 = 'A ', 'B '\ndo\n_PROMPT = 'C ' end\n"))
      local count = "function(p) p.n = p.n + 1 return p.n .. ': ' end"
      local numbered = "_PROMPT = setmetatable({ n = 0 }, { __tostring = " .. count .. " })\n"
      assert.equal("> 1: 2: 3: \n", (repl(numbered .. "x = 1\nx = 2\n")))
      assert.equal("> > \n", (repl "_PROMPT = setmetatable({}, { __tostring = error })\n"))
    end)
    it("has lt, unless that name is taken; a strict _G does not disturb it", function()
      assert.matches("function", (repl "type(lt.version)\n"))
      assert.matches("> mine\n", run({ "-e", "lt = 'mine'", "-i", stdin = "lt\n" }).out)
      local strict = "setmetatable(_G, { __index = error, __newindex = error })"
      local r = run { "-e", strict, "-i", stdin = "1 + 1\n" }
      assert.equal("", r.err)
      assert.matches("> 2\n", r.out)
    end)
    it("follows the script with -i", function()
      local r = run { "-i", write("first.lua", "y = 9"), stdin = "y\n" }
      assert.matches("> 9\n", r.out)
    end)
    it("refuses to print more values than fit, and goes on", function()
      local out, err = repl "table.unpack({}, 1, 999980)\n'after'\n"
      assert.matches("^too many results to print\n$", err)
      assert.matches("> after\n", out)
    end)
  end)

  describe("line editing", function()
    local edited = (read(program) or ""):find("rl_attempted_completion_function", 1, true)
      and os.execute "command -v script > /dev/null"
    local function typed(keys)
      local session = ("script -qec %s /dev/null"):format(quote(quote(program)))
      return shell(session, keys .. "os.exit()\n").out
    end
    it("completes globals, fields, methods and keywords", function()
      if not edited then return pending "built without libedit, or no script command" end
      assert.matches("\n42\r\n", typed "prin\t(6 * 7)\n")
      assert.matches("\nb%-a\r\n", typed "print((string.gs\t('a-b', '(.)-(.)', '%2-%1')))\n")
      assert.matches("\nHI\r\n", typed "s = 'hi'\nprint(s:upp\t())\n")
      assert.matches("\n8\r\n", typed "a = { b = { cde = 8 } }\nretu\t a.b.c\t\n")
      assert.matches("\nfunction", typed "x = lt.randn(2, 2)\nprint(x.matm\t)\n")
    end)
    it("runs no metamethod and raises no error while it completes", function()
      if not edited then return pending "built without libedit, or no script command" end
      local out = typed("t = setmetatable({}, { __index = function() print 'RAN' end })\n"
        .. "t.x\t.y\t = 1\nnosuch.a\t = 1\n('s'):u\t = 1\nprint 'alive'\n")
      assert.matches("\nalive\r\n", out)
      assert.not_matches("\nRAN\r\n.*\nRAN\r\n", out) -- once: by t.x, when it runs
    end)
    it("keeps a private, bounded history", function()
      if not edited then return pending "built without libedit, or no script command" end
      local file = path ".luatape_history"
      os.remove(file)
      typed "first = 1\ndo\nsecond = 2 end\n"
      assert.matches("first.*second", read(file))
      local listing = assert(io.popen("ls -l " .. quote(file)))
      assert.matches("^%-rw%-%-%-%-%-%-%-", listing:read "a")
      listing:close()
      local lines = {}
      for i = 1, 1500 do lines[i] = "line" .. i end
      write(".luatape_history", "_HiStOrY_V2_\n" .. table.concat(lines, "\n") .. "\n")
      typed ""
      local text = read(file)
      assert.matches("line1500\n", text)
      assert.is_true(select(2, text:gsub("\n", "")) <= 1001)
    end)
  end)
end)
