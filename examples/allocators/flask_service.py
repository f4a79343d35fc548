"""The same service with Flask and its threaded server: `python flask_service.py PORT` (needs flask)."""

import logging
import sys

from flask import Flask
from reports import Reports

REPORTS = Reports()
app = Flask(__name__)
logging.getLogger("werkzeug").setLevel(logging.ERROR)


@app.get("/<int:number>")
def report(number):
    return REPORTS.make(number)


app.run(host="127.0.0.1", port=int(sys.argv[1]), threaded=True)
