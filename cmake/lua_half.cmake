# Writes OUTPUT: a C table of the texts of FILES (below ROOT), so that a host needs no Lua files.
# Run as: cmake -DROOT=... -DFILES=a.lua;b/c.lua -DOUTPUT=lua_half.c -P lua_half.cmake
set(arrays "")
set(rows "")
set(number 0)
foreach(file IN LISTS FILES)
  file(READ "${ROOT}/${file}" hex HEX)
  string(REGEX REPLACE "([0-9a-f][0-9a-f])" "0x\\1," bytes "${hex}")
  string(REGEX REPLACE "(/init)?\\.lua$" "" name "${file}")
  string(REPLACE "/" "." name "${name}")
  string(APPEND arrays "static const char text_${number}[] = {${bytes}0};\n")
  string(APPEND rows "    {\"${name}\", text_${number}, sizeof text_${number} - 1},\n")
  math(EXPR number "${number} + 1")
endforeach()
file(WRITE "${OUTPUT}" "/* Made by cmake/lua_half.cmake. */\n#include \"lua/half.h\"\n\n${arrays}\n"
  "const lt_lua_text lt_lua_half[] = {\n${rows}    {0, 0, 0}};\n")
