std = "lua54"
ignore = { "581" } -- not (x < y) is meant as written: it is true of NaN
files["spec"] = { std = "+busted" }
files["lua/luatape/meta.lua"] = { ignore = { "212", "241" } } -- declarations
exclude_files = { "build*", "docs", "tree", "lua_modules", "spec/golden" }
