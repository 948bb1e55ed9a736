#pragma once
// What a program that trains needs: settings and launch_training(). See jobs/example.

#include "cli/launch.hpp"
#include "options/settings.hpp"
