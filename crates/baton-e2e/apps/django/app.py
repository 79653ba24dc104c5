"""A Django project in one file. The parameter `ms` says how long an answer takes."""

import os
import time

from django.conf import settings
from django.core.wsgi import get_wsgi_application
from django.http import HttpResponse, JsonResponse
from django.urls import path, re_path

settings.configure(
    DEBUG=False, ALLOWED_HOSTS=["127.0.0.1", "localhost"], ROOT_URLCONF=__name__, SECRET_KEY="only-for-this-example"
)


def health(request):
    return HttpResponse("healthy")


def work(request):
    received = len(request.body)
    time.sleep(int(request.GET.get("ms", "0")) / 1000)  # the work that a request costs
    return JsonResponse({
        "release": os.environ.get("BATON_RELEASE", "none"), "pid": os.getpid(), "bytes": received,
        "conn": request.headers.get("X-Conn"), "seq": request.headers.get("X-Seq"),
    })


urlpatterns = [path("health", health), re_path("^(slow|stream|upload)?$", lambda request, _: work(request))]

app = get_wsgi_application()
