-- The suite, under the interpreter that runs this file: lua5.4 spec/run.lua [busted options]
-- The checkout comes first on both paths, so neither LUA_PATH nor an installed copy decides what is
-- tested; every path on the command line and in LUATAPE_BUILD counts from the checkout.
local root = (arg[0]:match "^(.*)[/\\]" or ".") .. "/.."
assert(require "lfs".chdir(root))
local build = os.getenv "LUATAPE_BUILD" or "build"
package.path = "./?.lua;" .. package.path -- helpers are spec.name
package.cpath = build .. "/?.so;" .. package.cpath
if not package.searchpath("luatape", build .. "/?.so") then
  io.stderr:write(("%s/luatape.so is not there: build it, or set LUATAPE_BUILD\n"):format(build))
  os.exit(1)
end
require "busted.runner" { standalone = false }
