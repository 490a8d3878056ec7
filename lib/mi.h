/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include "mi-advert.h"
#include "mi-bytes.h"
#include "mi-certificate.h"
#include "mi-crypto.h"
#include "mi-dfu.h"
#include "mi-error.h"
#include "mi-frame.h"
#include "mi-image.h"
#include "mi-info.h"
#include "mi-link.h"
#include "mi-login.h"
#include "mi-models.h"
#include "mi-ota.h"
#include "mi-procedure.h"
#include "mi-register.h"
#include "mi-runner.h"
