/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "config.h"

#include "mi-error.h"

G_DEFINE_QUARK (mi-error-quark, mi_error)
