// Precompiled header of the tests: the library's, and what every test includes.
#pragma once

#include <gtest/gtest.h>

#include "ringlet/precompiled.h"
